//! Every input of the corpus through its target, and some that nobody has chosen.

use std::{fs, path::Path};

use proptest::{prelude::*, test_runner::TestRunner};

fn replay(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let inputs = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for input in inputs {
        let path = input.expect("a folder that can be read").path();
        // Shown if the test fails: the input that it failed with.
        println!("{}", path.display());
        fuzz::run(name, &fs::read(&path).expect("a file that can be read"));
        count += 1;
    }
    assert!(count >= 5, "{name} has only {count} inputs");
    let config = ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() };
    let bytes = proptest::collection::vec(any::<u8>(), 0..1500);
    TestRunner::new(config)
        .run(&bytes, |bytes| {
            fuzz::run(name, &bytes);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed_and_has_a_fuzzer() {
            let names: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let fuzzers = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/fuzz_targets");
            for name in names {
                assert!(fuzzers.join(name).with_extension("rs").exists(), "{name}");
            }
        }
    };
}

targets!(xhci_ops, hda_ops, remote_msgs, session_links, sound_path, usb_descriptors, vfio_user_step);
