//! Key files and how keys are written.

use std::{fs, os::unix::fs::PermissionsExt};

use noise::{KeyError, ParseKeyError, PublicKey, SecretKey};

#[test]
fn a_key_file_is_made_once_readable_by_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.key");
    let made = SecretKey::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(SecretKey::load_or_create(&path).unwrap() == made);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
}

#[test]
fn many_who_make_it_at_once_have_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.key");
    let keys: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| SecretKey::load_or_create(&path))).collect();
        makers.into_iter().map(|maker| maker.join().unwrap().unwrap().public()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.key");
    SecretKey::load_or_create(&path).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = SecretKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { .. }));
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
}

#[test]
fn a_file_with_something_else_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.key");
    let public = SecretKey::generate().public().to_string();
    for content in
        [&b""[..], b"hello", b"farbus-secret:abc", public.as_bytes(), &[0xff; 100], &[b'a'; 100_000]]
    {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(SecretKey::load_or_create(&path), Err(KeyError::Malformed { .. })), "{content:?}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_missing_directory_is_named() {
    let error = SecretKey::load_or_create("/nowhere/at/all.key".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all.key: "), "{error}");
}

#[test]
fn a_public_key_reads_back_in_either_case() {
    let key = SecretKey::generate().public();
    let text = key.to_string();
    assert_eq!(text.len(), 52);
    assert!(text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{text}");
    assert_eq!(text.parse(), Ok(key));
    assert_eq!(text.to_uppercase().parse(), Ok(key));
}

#[test]
fn the_public_half_is_x25519() {
    // RFC 7748 §5.2: one iteration, which is the public key of the secret 9.
    let secret =
        "09 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00";
    let public =
        "42 2c 8e 7a 62 27 d7 bc a1 35 0b 3e 2b b7 27 9f 78 97 b8 7b b6 85 4b 78 3c 60 e8 03 11 ae 30 79";
    let bytes = |hex: &str| hex.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect::<Vec<u8>>();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nine.key");
    let text = PublicKey(bytes(secret).try_into().unwrap()).to_string();
    fs::write(&path, format!("farbus-secret:{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(SecretKey::load_or_create(&path).unwrap().public().0.to_vec(), bytes(public));
}

#[test]
fn what_is_no_public_key_is_refused() {
    let text = SecretKey::generate().public().to_string();
    let longer = format!("{text}a");
    for wrong in ["", "any", &text[1..], &longer, &text.replace(&text[..1], "1"), &"é".repeat(26)] {
        assert_eq!(wrong.parse::<PublicKey>(), Err(ParseKeyError::Malformed), "{wrong}");
    }
    assert_eq!("farbus-secret:abc".parse::<PublicKey>(), Err(ParseKeyError::Secret));
}

#[test]
fn a_secret_is_never_printed() {
    assert_eq!(format!("{:?}", SecretKey::generate()), "SecretKey(..)");
}
