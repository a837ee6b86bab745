#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    joinery_fuzz::machines::irc(data);
});
