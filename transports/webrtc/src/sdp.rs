//! What a session description of a stranger has to be like before it is parsed. RFC 8866, RFC 8841.

use async_rtc::peer_connection::RTCSessionDescription;

use crate::SdpError;

/// The longest session description that is read, bytes.
pub const MAX_SDP: usize = 64 * 1024;
/// More media sections than a browser offers for sound, picture and data.
const MAX_MEDIA: usize = 8;
/// More candidates than any host has.
const MAX_CANDIDATES: usize = 256;
/// The longest message of ours; what a description that does not say allows. RFC 8841 §6.1.
pub(crate) const MAX_MESSAGE: usize = 65_536;

/// What a description has, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// A section for sound.
    pub(crate) audio: bool,
    /// Candidates that are names of multicast DNS: a browser's.
    pub(crate) mdns: bool,
}

/// Reads an offer of somebody.
pub(crate) fn offer(sdp: &str) -> Result<(RTCSessionDescription, Shape), SdpError> {
    let shape = check(sdp)?;
    let parsed = RTCSessionDescription::offer(sdp.to_owned());
    Ok((parsed.map_err(|error| SdpError::Malformed(error.to_string()))?, shape))
}

/// Reads an answer of somebody.
pub(crate) fn answer(sdp: &str) -> Result<RTCSessionDescription, SdpError> {
    check(sdp)?;
    RTCSessionDescription::answer(sdp.to_owned()).map_err(|error| SdpError::Malformed(error.to_string()))
}

/// Looks at a description before anything else does.
fn check(sdp: &str) -> Result<Shape, SdpError> {
    if sdp.len() > MAX_SDP {
        return Err(SdpError::TooLong(sdp.len()));
    }
    let lines = || sdp.lines().map(str::trim_end);
    let values = |prefix: &'static str| lines().filter_map(move |line| line.strip_prefix(prefix));
    for (prefix, most) in [("m=", MAX_MEDIA), ("a=candidate:", MAX_CANDIDATES)] {
        if values(prefix).count() > most {
            return Err(SdpError::TooMany(prefix));
        }
    }
    if !values("a=fingerprint:").any(is_sha256) {
        return Err(SdpError::NoFingerprint);
    }
    if !values("m=application ").any(|section| section.ends_with("webrtc-datachannel")) {
        return Err(SdpError::NoDataChannels);
    }
    // The crate below notices this when it has taken half of an answer already.
    for credential in ["a=ice-ufrag:", "a=ice-pwd:"] {
        if values(credential).next().is_none_or(str::is_empty) {
            return Err(SdpError::Malformed(format!("there is no `{credential}`")));
        }
    }
    // Zero is no limit.
    let limits = values("a=max-message-size:").filter_map(|limit| limit.parse::<u64>().ok());
    if let Some(limit) = limits.filter(|limit| *limit > 0).min().filter(|limit| *limit < MAX_MESSAGE as u64) {
        return Err(SdpError::ShortMessages(limit));
    }
    Ok(Shape {
        audio: values("m=audio ").next().is_some(),
        mdns: values("a=candidate:").any(|candidate| candidate.contains(".local ")),
    })
}

/// Whether a fingerprint is one of SHA-256: 32 bytes in hexadecimal, with colons between them. RFC 8122 §5.
fn is_sha256(fingerprint: &str) -> bool {
    let Some((hash, value)) = fingerprint.split_once(' ') else { return false };
    let byte = |text: &str| text.len() == 2 && text.bytes().all(|c| c.is_ascii_hexdigit());
    hash.eq_ignore_ascii_case("sha-256")
        && value.trim().split(':').count() == 32
        && value.trim().split(':').all(byte)
}
