//! Pieces of session descriptions: what a remote says of its candidates after its offer. RFC 8840.

use std::fmt::Write as _;

/// The most candidates of a fragment.
const MAX_CANDIDATES: usize = 64;
/// The longest of them, bytes.
const MAX_CANDIDATE: usize = 1024;

/// What a fragment says. RFC 8840 §9.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fragment {
    /// `a=ice-ufrag` and `a=ice-pwd`.
    credentials: Option<(String, String)>,
    /// `candidate:...`.
    pub(crate) candidates: Vec<String>,
}

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.trim_end().strip_prefix(name));
            values.next().map(str::to_owned)
        };
        let credentials = match (value("a=ice-ufrag:"), value("a=ice-pwd:")) {
            (None, None) => None,
            (Some(name), Some(password)) if plain(&name, 4) && plain(&password, 22) => Some((name, password)),
            _ => return Err("a fragment has both of a=ice-ufrag and a=ice-pwd, or none".to_owned()),
        };
        let candidates = text.lines().filter_map(|line| line.trim_end().strip_prefix("a="));
        let candidates: Vec<_> =
            candidates.filter(|line| line.starts_with("candidate:")).map(str::to_owned).collect();
        if candidates.iter().any(|candidate| candidate.len() > MAX_CANDIDATE) {
            return Err(format!("a candidate has at most {MAX_CANDIDATE} bytes"));
        }
        if candidates.len() > MAX_CANDIDATES {
            return Err(format!("a fragment has at most {MAX_CANDIDATES} candidates"));
        }
        if credentials.is_none() && candidates.is_empty() && !text.contains("a=end-of-candidates") {
            return Err("no fragment of a session description".to_owned());
        }
        Ok(Self { credentials, candidates })
    }

    /// Whether it could belong to the connection that this description began, and not to one of other credentials.
    pub(crate) fn fits(&self, description: &str) -> bool {
        let has = |line: &str| description.lines().any(|own| own.trim_end() == line);
        self.credentials.as_ref().is_none_or(|(name, _)| has(&format!("a=ice-ufrag:{name}")))
    }

    /// The description with the credentials and the candidates of this fragment: an offer that restarts ICE.
    ///
    /// # Errors
    /// The fragment has no credentials.
    pub(crate) fn restart(&self, description: &str) -> Result<String, String> {
        let Some((name, password)) = &self.credentials else {
            return Err("a restart needs new values of a=ice-ufrag and a=ice-pwd".to_owned());
        };
        if self.fits(description) {
            return Err("a restart needs new values of a=ice-ufrag and a=ice-pwd".to_owned());
        }
        let mut restarted = String::with_capacity(description.len());
        for line in description.lines().map(str::trim_end) {
            // Whoever wrote the description chose how often the candidates stand in it.
            if restarted.len() > webrtc::MAX_SDP {
                return Err("the description would become too long".to_owned());
            }
            match line.split_once(':').map_or(line, |(name, _)| name) {
                "a=candidate" | "a=end-of-candidates" | "a=ice-pwd" => continue,
                "a=ice-ufrag" => {
                    let _ = write!(restarted, "a=ice-ufrag:{name}\r\na=ice-pwd:{password}\r\n");
                    self.candidates.iter().for_each(|candidate| {
                        let _ = write!(restarted, "a={candidate}\r\n");
                    });
                }
                _ => {
                    let _ = write!(restarted, "{line}\r\n");
                }
            }
        }
        Ok(restarted)
    }

    /// What the peer has to know of our description after a restart.
    pub(crate) fn of(description: &str) -> String {
        let mut fragment = String::new();
        let mut section = false;
        for line in description.lines().map(str::trim_end) {
            let name = line.split_once([':', '=']).map_or(line, |(name, _)| name);
            let ice = ["a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates", "a=mid:"];
            // All sections are one bundle, and the first speaks for them. RFC 8840 §5.2.
            let second = section && name == "m";
            if second {
                break;
            }
            section |= name == "m";
            if name == "m" || ice.iter().any(|known| line.starts_with(known)) {
                let _ = write!(fragment, "{line}\r\n");
            }
        }
        fragment
    }
}

/// Characters that ICE allows in credentials, at least so many. RFC 8839 §5.4.
fn plain(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\nm=audio 9 x\r\na=ice-ufrag:old1\r\na=ice-pwd:0123456789012345678901\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\nm=application 9 x\r\na=ice-ufrag:old1\r\na=ice-pwd:0123456789012345678901\r\na=mid:1\r\n";
    const NEW: &str = "a=ice-ufrag:new1\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\nm=audio 9 x\r\na=mid:0\r\na=candidate:2 1 udp 1 192.0.2.2 2 typ host\r\n";

    #[test]
    fn candidates_are_read_and_belong_to_the_credentials_beside_them() {
        let fragment = Fragment::parse(NEW).unwrap();
        assert_eq!(fragment.candidates, ["candidate:2 1 udp 1 192.0.2.2 2 typ host"]);
        assert!(!fragment.fits(OFFER));
        assert!(Fragment::parse(&NEW.replace("new1", "old1")).unwrap().fits(OFFER));
        assert!(Fragment::parse("a=candidate:2 1 udp 1 192.0.2.2 2 typ host").unwrap().fits(OFFER));
        assert!(Fragment::parse("a=end-of-candidates").unwrap().candidates.is_empty());
    }

    #[test]
    fn what_is_no_fragment_is_refused() {
        let many = "a=candidate:x\r\n".repeat(MAX_CANDIDATES + 1);
        let half = "a=ice-ufrag:new1\r\na=candidate:x";
        let injected = NEW.replace("new1", "ne w");
        for text in ["", "hello", &many, half, &injected] {
            assert!(Fragment::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_restart_is_the_offer_with_other_credentials_and_candidates() {
        let restarted = Fragment::parse(NEW).unwrap().restart(OFFER).unwrap();
        assert_eq!(restarted.matches("a=ice-ufrag:new1\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n").count(), 2);
        assert!(!restarted.contains("old1") && !restarted.contains("192.0.2.1"), "{restarted}");
        assert!(restarted.contains("192.0.2.2") && restarted.contains("m=application 9 x\r\n"));
        let same = Fragment::parse(&NEW.replace("new1", "old1")).unwrap();
        assert!(same.restart(OFFER).is_err(), "the same credentials restart nothing");
    }

    #[test]
    fn what_is_said_of_our_description_is_ice_only() {
        let fragment = Fragment::of(OFFER);
        assert!(fragment.starts_with("m=audio 9 x\r\na=ice-ufrag:old1\r\n"), "{fragment}");
        assert_eq!(fragment.matches("a=ice-ufrag").count(), 1);
        assert!(!fragment.contains("v=0"));
    }
}
