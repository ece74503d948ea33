//! The C header `ffi/include/sluice.h`: made from `ffi/src` by cbindgen, checked in, and held
//! against the code by a test. `SLUICE_WRITE_HEADER=1 cargo test -p sluice-header` writes it anew.
//!
//! A package of its own, so that what cbindgen needs is built for this alone.

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so")]

    use std::{fs, path::Path};

    use cbindgen::{Builder, Config, EnumConfig, ExportConfig, Language, RenameRule, Style};

    const HEADER: &str = "\
/* The Sluice client for C: no sockets, no clock, no threads. See ffi/README.md.
 *
 * Made from ffi/src by cbindgen: do not edit.
 *
 * After every call that takes the time: send what sluice_transmit gives, until it gives 0,
 * and take the events, until there is none. Then wait for a datagram or for sluice_timeout.
 *
 * A client is for one thread at a time. All functions take null for any pointer and answer
 * SLUICE_STATUS_NULL_POINTER; a pointer that is not null must be what it says it is.
 *
 * now_us: microseconds on any clock that doesn't go back.
 * Statuses are enum sluice_status, as int32_t. */";

    const TRAILER: &str = "\
/* The bytes of a C string, without its NUL; none for null. */
static inline struct sluice_bytes sluice_text(const char *text) {
  struct sluice_bytes bytes;
  bytes.data = (const uint8_t *)text;
  bytes.len = text ? strlen(text) : 0;
  return bytes;
}

/* To the private conversation with this user. */
static inline struct sluice_to sluice_to_user(const char *user) {
  struct sluice_to to;
  to.user = sluice_text(user);
  to.conversation = sluice_text(0);
  return to;
}";

    fn header(folder: &Path) -> String {
        let config = Config {
            language: Language::C,
            style: Style::Tag,
            cpp_compat: true,
            usize_is_size_t: true,
            no_includes: true,
            sys_includes: ["stddef.h", "stdint.h", "string.h"]
                .map(String::from)
                .into(),
            include_guard: Some("SLUICE_H".to_owned()),
            header: Some(HEADER.to_owned()),
            trailer: Some(TRAILER.to_owned()),
            line_length: 96,
            // No function names them: they go over as numbers.
            export: ExportConfig {
                include: ["sluice_status", "sluice_event_kind"]
                    .map(String::from)
                    .into(),
                ..ExportConfig::default()
            },
            enumeration: EnumConfig {
                rename_variants: RenameRule::QualifiedScreamingSnakeCase,
                ..EnumConfig::default()
            },
            ..Config::default()
        };
        let mut builder = Builder::new().with_config(config);
        for file in ["types.rs", "client.rs", "boundary.rs"] {
            builder = builder.with_src(folder.join("src").join(file));
        }
        let mut made = Vec::new();
        builder.generate().unwrap().write(&mut made);
        String::from_utf8(made).unwrap()
    }

    #[test]
    fn the_header_is_that_of_the_code() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ffi"));
        let made = header(folder);
        let file = folder.join("include/sluice.h");
        if std::env::var_os("SLUICE_WRITE_HEADER").is_some() {
            fs::write(&file, &made).unwrap();
        }
        assert!(
            fs::read_to_string(&file).unwrap() == made,
            "ffi/include/sluice.h is not what the code says: SLUICE_WRITE_HEADER=1 cargo test -p sluice-header"
        );
    }
}
