//! `getShardMap`: the nodes that hold data with their addresses.

use base::Result;
use bson::{Bson, Document};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use super::list_shards::config_documents;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    admin_only: true,
    ..Spec::later("getShardMap", "The nodes that hold data with their addresses.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let (mut map, mut hosts) = (Document::new(), Document::new());
        for node in config_documents(call, "shards").await? {
            let text = |name: &str| node.get_str(name).unwrap_or_default().to_owned();
            let (name, host) = (text("_id"), text("host"));
            let address = host.split_once('/').map_or(host.as_str(), |(_, address)| address).to_owned();
            hosts.insert(address, name.clone());
            map.insert(name, host);
        }
        let mut reply = Reply::new();
        reply.value("map", &Bson::Document(map));
        reply.value("hosts", &Bson::Document(hosts));
        Ok(reply.ok())
    }
    .boxed()
}
