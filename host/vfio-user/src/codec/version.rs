//! VERSION: who the client is, and what both sides can do.

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes};

use super::{MAX_DATA, MAX_FDS, MAX_MAPS, PAGE, Refusal, Version};

/// The most JSON we read, bytes.
const MAX_TEXT: usize = 8192;

/// Which of the two existing clients this is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// QEMU: proposes 0.0. Understands error replies.
    Qemu,
    /// Cloud Hypervisor, or anybody else with the crate `vfio_user`: proposes 0.1. Waits for ever after an error
    /// reply where a longer one belongs.
    CloudHypervisor,
}

impl Client {
    /// Whether an error reply may stand where a reply with a payload belongs.
    pub(super) fn understands_errors(self) -> bool {
        self == Self::Qemu
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Text {
    capabilities: Capabilities,
}

/// Those capabilities that concern us. What the client did not name is not answered.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Capabilities {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_msg_fds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_data_xfer_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_dma_maps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgsizes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_multiple: Option<bool>,
}

/// Reads the payload of VERSION; answers with the client and the payload of the reply.
pub(super) fn negotiate(payload: &[u8], write_multiple: bool) -> Result<(Client, Vec<u8>), Refusal> {
    let (proposed, text) = Version::read_from_prefix(payload).map_err(|_| Refusal::Invalid)?;
    if proposed.major != 0 {
        return Err(Refusal::Unsupported);
    }
    let theirs = parse(text)?.capabilities;
    let ours = Capabilities {
        max_msg_fds: theirs.max_msg_fds.and(Some(MAX_FDS as u32)),
        max_data_xfer_size: theirs.max_data_xfer_size.and(Some(MAX_DATA)),
        max_dma_maps: theirs.max_dma_maps.map(|most| most.min(MAX_MAPS as u32)),
        pgsizes: theirs.pgsizes.and(Some(PAGE)),
        write_multiple: theirs.write_multiple.filter(|theirs| *theirs && write_multiple),
    };
    let client = if proposed.minor == 0 { Client::Qemu } else { Client::CloudHypervisor };
    let mut reply = Version { major: 0, minor: proposed.minor.min(1) }.as_bytes().to_vec();
    let text = serde_json::to_vec(&Text { capabilities: ours }).map_err(|_| Refusal::Invalid)?;
    reply.extend(text);
    reply.push(0);
    Ok((client, reply))
}

/// The text is optional; if it is there, a NUL ends it.
fn parse(text: &[u8]) -> Result<Text, Refusal> {
    if text.is_empty() {
        return Ok(Text::default());
    }
    let json = text.strip_suffix(&[0]).filter(|json| json.len() <= MAX_TEXT).ok_or(Refusal::Invalid)?;
    serde_json::from_slice(json).map_err(|_| Refusal::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU 11.1.3 says.
    const QEMU: &str = concat!(
        r#"{"capabilities": {"migration": {"pgsize": 4096, "max_bitmap_size": 33554432}, "max_msg_fds": 16, "#,
        r#""pgsizes": 4096, "max_data_xfer_size": 1048576, "max_dma_maps": 65535, "write_multiple": true}}"#
    );

    fn ask(major: u16, minor: u16, text: &[u8]) -> Result<(Client, String), Refusal> {
        let payload = [Version { major, minor }.as_bytes(), text].concat();
        let (client, reply) = negotiate(&payload, false)?;
        assert_eq!((reply[0], reply[1]), (0, 0));
        assert!(u16::from(reply[2]) <= minor);
        Ok((client, String::from_utf8(reply[4..].to_vec()).unwrap()))
    }

    #[test]
    fn qemu_gets_a_reply_that_is_no_longer_than_its_request() {
        let (client, reply) = ask(0, 0, format!("{QEMU}\0").as_bytes()).unwrap();
        assert_eq!(client, Client::Qemu);
        assert!(reply.len() <= QEMU.len() + 1);
        let capabilities =
            r#"{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096}"#;
        assert_eq!(reply, format!("{{\"capabilities\":{capabilities}}}\0"));
    }

    #[test]
    fn cloud_hypervisor_is_known_by_its_version() {
        let text = b"{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576}}\0";
        let (client, reply) = ask(0, 1, text).unwrap();
        assert_eq!(client, Client::CloudHypervisor);
        assert_eq!(reply, "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576}}\0");
    }

    #[test]
    fn a_client_without_text_gets_no_capabilities_but_a_text() {
        assert_eq!(ask(0, 0, b"").unwrap().1, "{\"capabilities\":{}}\0");
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            &b"{}"[..],
            b"{",
            b"{\0",
            b"{\"capabilities\":\0",
            b"{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            b"{\"capabilities\":{\"max_msg_fds\":\"x\"}}\0",
            b"{\"capabilities\":{\"max_msg_fds\":4294967296}}\0",
            b"{\"capabilities\":7}\0",
            b"\xff\xff\0",
            b"\0\0",
        ] {
            assert_eq!(ask(0, 0, text), Err(Refusal::Invalid), "{}", text.escape_ascii());
        }
        assert_eq!(ask(1, 0, b"{}\0"), Err(Refusal::Unsupported));
        assert_eq!(negotiate(&[0, 0, 0], false), Err(Refusal::Invalid));
        let deep = [b"[".repeat(MAX_TEXT), vec![0]].concat();
        assert_eq!(ask(0, 0, &deep), Err(Refusal::Invalid));
    }

    #[test]
    fn write_multiple_is_offered_on_request_only() {
        let payload = [Version { major: 0, minor: 0 }.as_bytes(), QEMU.as_bytes(), &[0]].concat();
        let (_, reply) = negotiate(&payload, true).unwrap();
        assert!(String::from_utf8_lossy(&reply).contains("\"write_multiple\":true"));
    }
}
