#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let target = sluice_fuzz::target("header").expect("a target of this name");
    (target.run)(input);
});
