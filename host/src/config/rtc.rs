//! How links over WebRTC come about: the table `[webrtc]`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use serde::Deserialize;

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
    /// `stun:host:port`, `turn:host:port` or `turns:host:port?transport=tcp`.
    pub(crate) urls: Vec<String>,
    /// The user; TURN only.
    #[serde(default)]
    pub(crate) username: String,
    /// The password; TURN only.
    #[serde(default)]
    pub(crate) credential: String,
}

/// Without the password.
impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceServer({:?})", self.urls)
    }
}

impl Rtc {
    pub(super) fn check(&self) -> Result<()> {
        let is = |server: &IceServer, kind: &str| server.urls.iter().any(|url| url.starts_with(kind));
        let known =
            |url: &String| ["stun:", "stuns:", "turn:", "turns:"].iter().any(|kind| url.starts_with(kind));
        if let Some(url) = self.ice_servers.iter().flat_map(|server| &server.urls).find(|url| !known(url)) {
            bail!("ice_servers: `{url}` is neither stun:host:port nor turn:host:port");
        }
        if self.relay_only && !self.ice_servers.iter().any(|server| is(server, "turn")) {
            bail!("relay_only needs a turn: server in ice_servers");
        }
        Ok(())
    }

    /// How a link is set up for a remote that has reached the host at `near`.
    pub(crate) fn at(&self, near: IpAddr) -> webrtc::Config {
        let mut config = webrtc::Config::default();
        if self.bind.is_empty() {
            config.bind.push((near, 0).into());
        } else {
            config.bind.clone_from(&self.bind);
        }
        let servers = self.ice_servers.iter().cloned();
        config.ice_servers = servers
            .map(|IceServer { urls, username, credential }| webrtc::IceServer { urls, username, credential })
            .collect();
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
        assert!(Rtc::default().at(near).bind.contains(&(near, 0).into()));
        let said: Rtc = toml::from_str("bind = [\"192.0.2.1:7000\"]").unwrap();
        assert_eq!(said.at(near).bind, [SocketAddr::from(([192, 0, 2, 1], 7000))]);
    }

    #[test]
    fn servers_are_stun_or_turn_and_relays_need_one_and_passwords_are_not_shown() {
        for (text, says) in
            [("relay_only = true", "turn:"), ("ice_servers = [{ urls = [\"http://x\"] }]", "neither stun")]
        {
            let error = toml::from_str::<Rtc>(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let text = "relay_only = true\nice_servers = [{ urls = [\"turn:x:1\"], username = \"u\", credential = \"geheim\" }]";
        let rtc: Rtc = toml::from_str(text).unwrap();
        rtc.check().unwrap();
        assert!(!format!("{rtc:?}").contains("geheim"));
    }
}
