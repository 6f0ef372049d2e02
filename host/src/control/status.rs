//! `farbus-host status`: what every VM has, in words.

use std::process::ExitCode;

use anyhow::Result;
use control_socket::{client::PATIENCE, time};

use super::{
    Reply, Request, Status, VmStatus, WebStatus,
    client::{NO_HOST, ask, call, say, unexpected},
};
use crate::{cli::Ask, config::Config, counted::Counted};

/// Asks and prints.
///
/// # Errors
/// No host runs with this configuration, or it does not answer.
pub(crate) fn run(args: &Ask) -> Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let Some(mut line) = call(&config)? else { anyhow::bail!(NO_HOST) };
    match ask(&mut line, &Request::Status, PATIENCE)? {
        Reply::Status(status) => say(args.json, &status, || words(&status))?,
        other => return unexpected(other),
    }
    Ok(ExitCode::SUCCESS)
}

fn words(Status { address, fingerprint, web, uptime_s, vms }: &Status) -> String {
    let mut words = format!("listening on {address} for {}; key {fingerprint}", time(*uptime_s));
    if let Some(WebStatus { address, fingerprint }) = web {
        words += &format!("\nweb endpoint at https://{address}; certificate SHA-256 {fingerprint}");
    }
    for vm in vms {
        words += &format!("\n{}", of_vm(vm));
    }
    words
}

fn of_vm(VmStatus { vm, worker, remote, lent, counted }: &VmStatus) -> String {
    let worker = worker.map_or("no worker at the moment".to_owned(), |id| format!("worker {id}"));
    let Some(remote) = remote else { return format!("vm {vm}: {worker}, no remote") };
    let Counted {
        frames,
        requests,
        devices,
        round_trip_us,
        jitter_us,
        loss_ppm,
        resumes,
        hand_overs,
        held_ms,
        lanes,
        ..
    } = counted;
    let from = remote.address.as_deref().unwrap_or("somewhere");
    let round_trip = round_trip_us.map_or("not known yet".to_owned(), millis);
    let mut words = format!(
        "vm {vm}: {worker}, remote `{}` at {from} by {} for {}\n  key {}\n  devices lent: {devices}, USB requests: {requests}, frames of sound: {frames}\n{}  \
         round trip {round_trip}, jitter {}, loss {}.{:04} %, {resumes} resumes, {hand_overs} hand-overs, held {}\n  \
         lane        sent bytes  received bytes      queued  sent again",
        remote.name,
        remote.transport.as_deref().unwrap_or("no link at the moment"),
        time(remote.linked_for_s),
        remote.key,
        lent.iter().map(|device| format!("  {device}\n")).collect::<String>(),
        millis(*jitter_us),
        loss_ppm / 10_000,
        loss_ppm % 10_000,
        millis(held_ms.saturating_mul(1000)),
    );
    for lane in lanes {
        words += &format!(
            "\n  {:<6} {:>15} {:>15} {:>11} {:>11}",
            lane.lane, lane.sent_bytes, lane.received_bytes, lane.queued_bytes, lane.retransmitted_frames
        );
    }
    words
}

fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::Remote, counted::LaneCounted, lent::LentDevice};

    #[test]
    fn people_read_who_has_a_vm_and_how_the_way_there_is() {
        let remote = Remote {
            key: "abc".into(),
            name: "laptop".into(),
            address: Some("192.0.2.7:5".into()),
            transport: Some("noise-tcp".into()),
            linked_for_s: 7500,
        };
        let lane = LaneCounted {
            lane: "bulk".into(),
            sent_bytes: 12_345,
            queued_bytes: 17,
            ..LaneCounted::default()
        };
        let counted = Counted {
            devices: 2,
            round_trip_us: Some(1234),
            held_ms: 250,
            loss_ppm: 12_345,
            lanes: vec![lane],
            ..Counted::default()
        };
        let lent = LentDevice {
            device: 3,
            port: Some(9),
            id: "1234:0008".into(),
            name: "Stick".into(),
            speed: "super".into(),
        };
        let (vm, worker, remote, lent) = ("desk".into(), Some(7), Some(remote), vec![lent]);
        let vm = VmStatus { vm, worker, remote, lent, counted };
        let words = of_vm(&vm);
        for part in [
            "vm desk: worker 7, remote `laptop` at 192.0.2.7:5 by noise-tcp for 2 h 5 min",
            "devices lent: 2",
            "\n    3  port 9    1234:0008  super  Stick\n  round trip",
            "round trip 1.23 ms",
            "loss 1.2345 %",
            "held 250.00 ms",
            "bulk             12345",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert_eq!(
            of_vm(&VmStatus { worker: None, remote: None, ..vm }),
            "vm desk: no worker at the moment, no remote"
        );
    }
}
