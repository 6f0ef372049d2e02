#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("vfio_user_step", data));
