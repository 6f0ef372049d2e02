//! STUN and TURN servers, as the command line names them.

use std::str::FromStr;

/// A server: `stun:HOST:PORT`, or `turn:USER:PASSWORD@HOST:PORT`. It is spoken to over UDP.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct IceServer(webrtc::IceServer);

/// Without the password.
impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceServer({:?})", self.0.urls)
    }
}

impl IceServer {
    /// Whether it relays.
    pub(crate) fn relays(&self) -> bool {
        self.0.urls.iter().any(|url| url.starts_with("turn"))
    }
}

impl From<IceServer> for webrtc::IceServer {
    fn from(server: IceServer) -> Self {
        server.0
    }
}

impl FromStr for IceServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or_default();
        let server = |url: String, username: &str, credential: &str| {
            let (username, credential) = (username.to_owned(), credential.to_owned());
            Ok(Self(webrtc::IceServer { urls: vec![url], username, credential }))
        };
        if matches!(kind, "stuns" | "turns") || rest.ends_with("?transport=tcp") {
            return Err("STUN and TURN servers are spoken to over UDP only, neither TCP nor TLS".to_owned());
        }
        match (kind, rest.rsplit_once('@')) {
            ("stun", None) if !rest.is_empty() => server(text.to_owned(), "", ""),
            ("turn", Some((user, place))) if !place.is_empty() => match user.split_once(':') {
                Some((name, password)) if !name.is_empty() => {
                    server(format!("{kind}:{place}"), name, password)
                }
                _ => Err("a TURN server needs a user: turn:USER:PASSWORD@HOST:PORT".to_owned()),
            },
            ("turn", _) => Err("a TURN server needs a user: turn:USER:PASSWORD@HOST:PORT".to_owned()),
            // The text may have a password in it: it is not said again.
            _ => Err("this is neither stun:HOST:PORT nor turn:USER:PASSWORD@HOST:PORT".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_its_user_in_front_of_its_place() {
        let parse = |text: &str| {
            text.parse::<IceServer>()
                .map(|server| (server.0.urls[0].clone(), server.0.username, server.0.credential))
        };
        let stun = ("stun:a:3478".to_owned(), String::new(), String::new());
        assert_eq!(parse("stun:a:3478"), Ok(stun));
        let turn = ("turn:a:3478?transport=udp".to_owned(), "me".to_owned(), "p@:w".to_owned());
        assert_eq!(parse("turn:me:p@:w@a:3478?transport=udp"), Ok(turn));
        for wrong in ["", "a:1", "stun:", "turn:a:1", "turn:me@a:1", "turn::x@a:1", "turn:me:x@", "http://a"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_that_would_be_passed_by_is_refused() {
        for wrong in [
            "turns:me:x@a:5349",
            "turns:me:x@a:5349?transport=tcp",
            "turn:me:x@a:1?transport=tcp",
            "stuns:a:1",
        ] {
            assert!(wrong.parse::<IceServer>().unwrap_err().contains("UDP only"), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let server: IceServer = "turn:me:secret@a:1".parse().unwrap();
        assert!(server.relays() && !format!("{server:?}").contains("secret"));
        assert!(!"turnip:me:secret@a".parse::<IceServer>().unwrap_err().contains("secret"));
    }
}
