//! What `farbus-host doctor` says of the tables `[web]` and `[webrtc]`: certificate, addresses, buffers.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

use nix::ifaddrs::getifaddrs;

use super::{Finding, Verdict};
use crate::{
    config::{Config, Rtc, Web},
    control::{Status, WebStatus},
    manager::tls::{self, Identity},
};

/// Everything that can be said of both tables; `serving` is what the running host says of itself, if one runs.
pub(super) fn examine(config: &Config, serving: Option<&Status>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(web) = &config.web {
        findings.push(certificate(web, &config.key_file));
        let served = serving.and_then(|status| status.web.as_ref());
        findings.push(web_address(web.listen, served));
    }
    findings.extend(udp_addresses(&config.webrtc, serving.is_some()));
    findings.push(udp_buffer(webrtc::udp_buffer()));
    findings
}

/// The certificate of the endpoint is there, and its key is its own. Nothing is made here.
fn certificate(web: &Web, key_file: &Path) -> Finding {
    const CHECK: &str = "the web endpoint's certificate";
    let (identity, advice) = match web.own() {
        Some((certificate, key)) => (
            Identity::load(certificate, key),
            "`certificate` and `key` of [web] name PEM files that the user of farbus-host can read, a certificate and the key that it was made for",
        ),
        None => {
            let file = tls::beside(key_file);
            if !file.exists() {
                return Finding::good(CHECK, format!("none is named: `serve` makes {}", file.display()));
            }
            (
                Identity::load_or_create(&file),
                "remove the file: `serve` makes another one, which pages must be told of",
            )
        }
    };
    let fingerprint = identity.and_then(|identity| {
        let fingerprint = identity.fingerprint();
        identity.config().map(|_| fingerprint)
    });
    match fingerprint {
        Ok(fingerprint) => Finding::good(CHECK, format!("of SHA-256 {fingerprint}, and its key fits")),
        Err(error) => Finding::bad(CHECK, format!("{error:#}"), advice),
    }
}

/// The endpoint can be had, or is served there.
fn web_address(listen: SocketAddr, served: Option<&WebStatus>) -> Finding {
    const CHECK: &str = "the web endpoint's address";
    if served.is_some_and(|served| served.address.parse() == Ok(listen)) {
        return Finding::good(CHECK, format!("{listen} is served{}", on(listen.ip())));
    }
    match TcpListener::bind(listen) {
        Ok(_) => Finding::good(CHECK, format!("{listen} can be bound{}", on(listen.ip()))),
        Err(error) => {
            let found = cannot_bind(CHECK, listen, &error, "`listen` of [web]", "ss -ltnp");
            // The host that answers has another address: this one is not its own.
            let verdict = if served.is_some() { Verdict::Bad } else { found.verdict };
            Finding { verdict, ..found }
        }
    }
}

/// The addresses of links can be had, or are in use by a link.
fn udp_addresses(rtc: &Rtc, serving: bool) -> Vec<Finding> {
    const CHECK: &str = "WebRTC's UDP address";
    if rtc.bind.is_empty() {
        let seen = "any free port, on every interface: a firewall must let UDP in, or `bind` of [webrtc] names ports";
        return vec![Finding::good(CHECK, seen)];
    }
    let look = |address: &SocketAddr| match UdpSocket::bind(address) {
        Ok(_) => {
            let port = if address.port() == 0 { ", by any free port" } else { "" };
            Finding::good(CHECK, format!("{address} can be bound{}{port}", on(address.ip())))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse && serving => Finding::unknown(
            CHECK,
            format!("{address} is in use: by a link of the running farbus-host, most likely"),
            format!("look again while no remote is linked, or see `ss -lunp sport = :{}`", address.port()),
        ),
        Err(error) => cannot_bind(CHECK, *address, &error, "`bind` of [webrtc]", "ss -lunp"),
    };
    rtc.bind.iter().map(look).collect()
}

/// An address that cannot be had, and what to do: `key` says which, `list` prints who has which.
fn cannot_bind(check: &str, address: SocketAddr, error: &io::Error, key: &str, list: &str) -> Finding {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "see `{list} sport = :{}`: if that is no farbus-host, end it, or choose another port for {key}",
                address.port()
            )
        }
        ErrorKind::AddrNotAvailable => {
            format!("no interface has this address: choose one that `ip -brief address` shows for {key}")
        }
        ErrorKind::PermissionDenied => {
            format!(
                "choose a port above 1023 for {key}, or give farbus-host the capability CAP_NET_BIND_SERVICE"
            )
        }
        _ => format!("choose another address for {key}"),
    };
    let seen = format!("{address} cannot be bound: {error}");
    if error.kind() == ErrorKind::AddrInUse {
        // By a farbus-host of another user, perhaps, whose control socket is elsewhere.
        return Finding::unknown(check, seen, advice);
    }
    Finding::bad(check, seen, advice)
}

/// Which interfaces an address is on, as the end of a sentence.
fn on(address: IpAddr) -> String {
    if address.is_unspecified() {
        return ", on every interface".to_owned();
    }
    let interfaces = getifaddrs().into_iter().flatten().filter(|interface| {
        let own = interface.address.as_ref();
        let v4 = own.and_then(|own| own.as_sockaddr_in()).map(|own| IpAddr::V4(own.ip()));
        let v6 = own.and_then(|own| own.as_sockaddr_in6()).map(|own| IpAddr::V6(own.ip()));
        v4.or(v6) == Some(address)
    });
    let only = if address.is_loopback() { ": only this computer reaches it" } else { "" };
    match interfaces.map(|interface| interface.interface_name).next() {
        Some(name) => format!(", on {name}{only}"),
        // All of 127.0.0.0/8 is this computer's.
        None => only.to_owned(),
    }
}

/// What a UDP socket gets of the buffer that it asks for.
fn udp_buffer(given: io::Result<usize>) -> Finding {
    const CHECK: &str = "WebRTC's UDP buffers";
    match given {
        Ok(size) if size >= webrtc::UDP_BUFFER => Finding::good(CHECK, format!("{} KiB", size >> 10)),
        Ok(size) => Finding::unknown(
            CHECK,
            format!(
                "{} KiB of {}: links have a narrow window, 128 KiB for each round trip",
                size >> 10,
                webrtc::UDP_BUFFER >> 10
            ),
            format!(
                "for more, as root: `sysctl -w net.core.rmem_max={0} net.core.wmem_max={0}`",
                webrtc::UDP_BUFFER
            ),
        ),
        Err(error) => Finding::bad(
            CHECK,
            error.to_string(),
            "farbus-host needs UDP sockets on loopback: see its sandbox",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr};

    use super::*;

    fn advice(finding: &Finding) -> &str {
        finding.advice.as_deref().unwrap_or_default()
    }

    fn web(listen: SocketAddr, files: Option<(&Path, &Path)>) -> Web {
        let (certificate, key) = files.map(|(certificate, key)| (certificate.into(), key.into())).unzip();
        Web { listen, certificate, key, origins: Vec::new() }
    }

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_certificate_must_be_there_and_have_its_own_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            fs::write(file(&format!("{name}.pem")), own.cert.pem()).unwrap();
            fs::write(file(&format!("{name}.key")), own.signing_key.serialize_pem()).unwrap();
        }
        for (cert, key, verdict, says) in [
            ("a.pem", "a.key", Verdict::Good, "SHA-256"),
            ("a.pem", "b.key", Verdict::Bad, "key"),
            ("absent", "a.key", Verdict::Bad, "absent"),
            ("a.key", "a.key", Verdict::Bad, "no certificate"),
            ("a.pem", "a.pem", Verdict::Bad, "a.pem"),
        ] {
            let found = certificate(&web(ANY, Some((&file(cert), &file(key)))), &file("host.key"));
            assert_eq!(found.verdict, verdict, "{cert} {key}: {found:?}");
            assert!(found.seen.contains(says), "{cert} {key}: {found:?}");
            assert!(verdict == Verdict::Good || advice(&found).contains("PEM files"), "{found:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_yet_to_be_made_is_good_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("host.key");
        let found = certificate(&web(ANY, None), &key_file);
        assert!(found.verdict == Verdict::Good && found.seen.contains("host.web.pem"), "{found:?}");
        assert!(!tls::beside(&key_file).exists());
        fs::write(tls::beside(&key_file), "nonsense").unwrap();
        let found = certificate(&web(ANY, None), &key_file);
        assert!(found.verdict == Verdict::Bad && advice(&found).contains("remove"), "{found:?}");
    }

    #[test]
    fn an_address_is_free_or_the_hosts_own_or_somebody_elses_or_nobodys() {
        let taken = TcpListener::bind(ANY).unwrap();
        let taken = (taken.local_addr().unwrap(), taken);
        let served = WebStatus { address: taken.0.to_string(), fingerprint: String::new() };
        let elsewhere = WebStatus { address: ANY.to_string(), ..served.clone() };
        let foreign: SocketAddr = "203.0.113.1:0".parse().unwrap();
        for (listen, served, verdict, says, todo) in [
            (ANY, None, Verdict::Good, "on lo: only this computer", ""),
            ("0.0.0.0:0".parse().unwrap(), None, Verdict::Good, "on every interface", ""),
            (taken.0, Some(&served), Verdict::Good, "is served", ""),
            (taken.0, Some(&elsewhere), Verdict::Bad, "cannot be bound", "ss -ltnp sport"),
            (taken.0, None, Verdict::Unknown, "cannot be bound", "`listen` of [web]"),
            (foreign, None, Verdict::Bad, "cannot be bound", "ip -brief address"),
        ] {
            let found = web_address(listen, served);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.seen.contains(says) && advice(&found).contains(todo), "{found:?}");
        }
    }

    #[test]
    fn udp_ports_are_free_or_in_use_by_a_link_perhaps() {
        let taken = UdpSocket::bind(ANY).unwrap();
        let address = taken.local_addr().unwrap();
        let rtc = |bind: &[SocketAddr]| Rtc { bind: bind.to_vec(), ..Rtc::default() };
        let only = |found: Vec<Finding>| found.into_iter().next().unwrap();
        assert!(only(udp_addresses(&rtc(&[]), false)).seen.contains("firewall"));
        assert!(only(udp_addresses(&rtc(&[ANY]), false)).seen.contains("any free port"));
        let found = only(udp_addresses(&rtc(&[address]), false));
        assert!(found.verdict == Verdict::Unknown && advice(&found).contains("[webrtc]"), "{found:?}");
        let found = only(udp_addresses(&rtc(&[address]), true));
        assert!(found.verdict == Verdict::Unknown && found.seen.contains("most likely"), "{found:?}");
        assert_eq!(udp_addresses(&rtc(&[ANY, address]), true).len(), 2);
    }

    #[test]
    fn small_udp_buffers_are_told_with_the_way_to_larger_ones() {
        assert_eq!(udp_buffer(Ok(webrtc::UDP_BUFFER)).verdict, Verdict::Good);
        let found = udp_buffer(Ok(425_984));
        assert!(found.verdict == Verdict::Unknown && found.seen.starts_with("416 KiB of 4096"), "{found:?}");
        assert!(advice(&found).contains("net.core.rmem_max=4194304"), "{found:?}");
        assert_eq!(udp_buffer(Err(ErrorKind::PermissionDenied.into())).verdict, Verdict::Bad);
    }
}
