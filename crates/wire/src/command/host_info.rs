//! `hostInfo`: the machine that the server runs on.

use base::Result;
use bson::doc;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec::now("hostInfo", "The machine that the server runs on.", run);

fn run(call: &Call<'_>) -> Result<Reply> {
    let machine = call.state.facts.machine();
    let memory_mb = i64::try_from(machine.memory_bytes / (1024 * 1024)).unwrap_or(i64::MAX);
    let cores = i32::try_from(machine.cores).unwrap_or(i32::MAX);
    let document = doc! {
        "system": {
            "currentTime": bson::DateTime::from_millis(call.state.clock.wall_ms()),
            "hostname": call.state.facts.host_name(),
            "cpuAddrSize": i32::try_from(usize::BITS).unwrap_or(64),
            "memSizeMB": memory_mb,
            "memLimitMB": memory_mb,
            "numCores": cores,
            "numCoresAvailableToProcess": cores,
            "cpuArch": std::env::consts::ARCH,
            "numaEnabled": false,
        },
        "os": { "type": std::env::consts::OS, "name": machine.os_name, "version": machine.os_version },
        "extra": {},
    };
    Ok(Reply::from_document(&document).ok())
}
