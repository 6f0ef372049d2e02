//! How links over WebRTC come about: the table `[webrtc]`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha1::Sha1;

/// So long, in seconds, credentials last that are made of a secret: what was asked for in the morning is good for an ICE
/// restart in the evening.
const LIFETIME: u64 = 24 * 60 * 60;

/// The table `[webrtc]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rtc {
    /// UDP addresses to bind, each for every link: "0.0.0.0:0" stands for every interface but loopback. If nothing is
    /// said: every interface, and the address at which the remote has reached the host.
    pub(crate) bind: Vec<SocketAddr>,
    /// STUN and TURN servers; none, unless said.
    pub(crate) ice_servers: Vec<IceServer>,
    /// Only relays are told to remotes. Needs a TURN server.
    pub(crate) relay_only: bool,
}

/// A STUN or TURN server.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IceServer {
    /// `stun:host:port` or `turn:host:port`, over UDP. `turns:host:port` and `?transport=tcp` are for web pages: this host
    /// passes them by.
    pub(crate) urls: Vec<String>,
    /// The user; TURN only.
    #[serde(default)]
    pub(crate) username: String,
    /// The password; TURN only. Web pages are told it.
    #[serde(default)]
    pub(crate) credential: String,
    /// What the TURN server shares with this host instead of a password (`static-auth-secret` of coturn). Nobody is told
    /// it; what is told is good for a day.
    #[serde(default)]
    pub(crate) secret: String,
}

/// Without the password and the secret.
impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceServer({:?})", self.urls)
    }
}

impl IceServer {
    /// User and password, for whoever asks at this time, in seconds since 1970: those that were said, or such as the server
    /// makes of the same secret. draft-uberti-behave-turn-rest-00 §2.2.
    pub(crate) fn credentials(&self, now: u64) -> (String, String) {
        if self.secret.is_empty() {
            return (self.username.clone(), self.credential.clone());
        }
        let until = now + LIFETIME;
        let user =
            if self.username.is_empty() { until.to_string() } else { format!("{until}:{}", self.username) };
        let password = password(&self.secret, &user);
        (user, password)
    }
}

fn password(secret: &str, user: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("a secret of any length");
    mac.update(user.as_bytes());
    BASE64.encode(&mac.finalize().into_bytes())
}

impl Rtc {
    pub(super) fn check(&self) -> Result<()> {
        let relays = |url: &String| url.starts_with("turn:") && !url.ends_with("?transport=tcp");
        let known =
            |url: &String| ["stun:", "stuns:", "turn:", "turns:"].iter().any(|kind| url.starts_with(kind));
        if let Some(url) = self.ice_servers.iter().flat_map(|server| &server.urls).find(|url| !known(url)) {
            bail!("ice_servers: `{url}` is neither stun:host:port nor turn:host:port");
        }
        if self.ice_servers.iter().any(|server| !server.secret.is_empty() && !server.credential.is_empty()) {
            bail!("ice_servers: a server has a `credential` or a `secret`, not both");
        }
        if self.relay_only && !self.ice_servers.iter().flat_map(|server| &server.urls).any(relays) {
            bail!("relay_only needs a turn: server in ice_servers, over UDP");
        }
        Ok(())
    }

    /// How a link is set up for a remote that has reached the host at `near`, at this time, in seconds since 1970.
    pub(crate) fn at(&self, near: IpAddr, now: u64) -> webrtc::Config {
        let mut config = webrtc::Config::default();
        if self.bind.is_empty() {
            config.bind.push((near, 0).into());
        } else {
            config.bind.clone_from(&self.bind);
        }
        let server = |server: &IceServer| {
            let (username, credential) = server.credentials(now);
            webrtc::IceServer { urls: server.urls.clone(), username, credential }
        };
        config.ice_servers = self.ice_servers.iter().map(server).collect();
        config.relay_only = self.relay_only;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_is_what_was_said_or_where_the_remote_came_to() {
        let near = IpAddr::from([127, 0, 0, 1]);
        assert!(Rtc::default().at(near, 0).bind.contains(&(near, 0).into()));
        let said: Rtc = toml::from_str("bind = [\"192.0.2.1:7000\"]").unwrap();
        assert_eq!(said.at(near, 0).bind, [SocketAddr::from(([192, 0, 2, 1], 7000))]);
    }

    #[test]
    fn servers_are_stun_or_turn_and_relays_need_one_and_passwords_are_not_shown() {
        let both = "ice_servers = [{ urls = [\"turn:x:1\"], credential = \"p\", secret = \"s\" }]";
        for (text, says) in [
            ("relay_only = true", "turn:"),
            ("relay_only = true\nice_servers = [{ urls = [\"turns:x:1\"] }]", "over UDP"),
            ("relay_only = true\nice_servers = [{ urls = [\"turn:x:1?transport=tcp\"] }]", "over UDP"),
            ("ice_servers = [{ urls = [\"http://x\"] }]", "neither stun"),
            (both, "not both"),
        ] {
            let error = toml::from_str::<Rtc>(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let text = "relay_only = true\nice_servers = [{ urls = [\"turn:x:1\"], username = \"u\", credential = \"geheim\" }]";
        let rtc: Rtc = toml::from_str(text).unwrap();
        rtc.check().unwrap();
        assert!(!format!("{rtc:?}").contains("geheim"));
        let rtc: Rtc = toml::from_str(&text.replace("credential", "secret")).unwrap();
        assert!(!format!("{rtc:?}").contains("geheim"));
    }

    #[test]
    fn of_a_secret_credentials_are_made_that_last_for_a_day() {
        // RFC 2202 §3, test case 2, in base64.
        assert_eq!(password("Jefe", "what do ya want for nothing?"), "7/zfauXrL6LSdBbV8YTfnCWafHk=");
        let servers = |user: &str| -> Rtc {
            let server = format!("urls = [\"turn:x:1\"], secret = \"north\"{user}");
            toml::from_str(&format!("ice_servers = [{{ {server} }}]")).unwrap()
        };
        let near = IpAddr::from([127, 0, 0, 1]);
        for (said, user, expected) in [
            (", username = \"desk\"", "1700086400:desk", "o/D01fPX5vJY6tMjqQIxsVb31fA="),
            ("", "1700086400", "K+RlgFj3QLvB7WAVHfjfgMgyBeA="),
        ] {
            let server = servers(said).at(near, 1_700_000_000).ice_servers.remove(0);
            assert_eq!((&*server.username, &*server.credential), (user, expected));
        }
    }
}
