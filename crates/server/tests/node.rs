//! A whole node in this process: commands over a socket, a clean stop, the same data after a start, and what is refused.

mod support;

use bson::doc;
use server::{Failure, Options, Server};
use support::{ask, options};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

async fn start(options: &Options) -> Result<Server, Failure> {
    Server::start(options.resolve().expect("valid options")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_stop_and_a_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = options(&directory.path().join("data"));

    let server = start(&options).await.expect("starts");
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    let reply =
        ask(&mut stream, "test", doc! { "insert": "c", "documents": [{ "_id": 1, "a": "x" }, { "_id": 2 }] })
            .await;
    assert_eq!(reply, doc! { "n": 2, "ok": 1.0 });
    server.stop().await.expect("stops in good order");
    assert_eq!(stream.read(&mut [0; 1]).await.ok(), Some(0), "an idle connection is closed at a stop");

    let server = start(&options).await.expect("starts again");
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    let reply = ask(&mut stream, "test", doc! { "find": "c", "filter": { "a": "x" } }).await;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    assert_eq!(batch.expect("a cursor"), &vec![bson::bson!({ "_id": 1, "a": "x" })]);
    server.stop().await.expect("stops again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_raft_log_does_not_come_back_under_its_old_id() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    start(&options(&data)).await.expect("starts").stop().await.expect("stops");
    for part in ["raft", "store"] {
        std::fs::remove_dir_all(data.join(part)).expect("removes");
    }
    let failure = start(&options(&data)).await.err().expect("refused").to_string();
    assert!(failure.contains("no Raft log any more"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_refused_below_the_reserve_and_reads_are_not() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options { disk_reserve_bytes: Some(u64::MAX), ..options(directory.path()) };
    let server = start(&options).await.expect("starts");
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    let refused = loop {
        let reply = ask(&mut stream, "test", doc! { "insert": "c", "documents": [{ "a": 1 }] }).await;
        // The first look at the disk runs beside the first commands.
        if reply.get_f64("ok").ok() == Some(0.0) {
            break reply;
        }
    };
    assert_eq!(refused.get_i32("code").ok(), Some(14_031));
    assert!(refused.get_str("errmsg").expect("a sentence").contains("reserve"), "{refused}");
    assert_eq!(ask(&mut stream, "test", doc! { "find": "c" }).await.get_f64("ok").ok(), Some(1.0));
    server.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_serves_one_node_at_a_time() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = options(directory.path());
    let server = start(&options).await.expect("starts");
    let failure = start(&options).await.err().expect("the directory is in use");
    assert!(matches!(&failure, Failure::Storage(fault) if fault.message.contains("in use")), "{failure}");
    server.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = taken.local_addr().expect("an address").to_string();
    let options = Options { listen: Some(address.clone()), ..options(directory.path()) };
    let failure = start(&options).await.err().expect("the port is taken");
    assert!(failure.to_string().contains(&address), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_file_is_written_when_connections_are_taken() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let port_file = directory.path().join("port");
    let options = Options { port_file: Some(port_file.clone()), ..options(&directory.path().join("data")) };
    let server = start(&options).await.expect("starts");
    let written = std::fs::read_to_string(&port_file).expect("written");
    assert_eq!(written, format!("{}\n", server.address().port()));
    server.stop().await.expect("stops");
}
