//! What the kernel says of socket memory: of the whole machine, since it keeps no
//! account of a process's.

use std::fs;

/// As `/proc/net/sockstat` calls them, and as metrics do.
const PROTOCOLS: [(&str, &str); 2] = [("TCP", "tcp"), ("UDP", "udp")];

/// Of most machines; where pages are larger this tells too little.
const PAGE_BYTES: u64 = 4_096;

/// Memory in the buffers of all sockets, in bytes, by protocol. Empty where there is no
/// `/proc` (proc_pid_net(5), `sockstat`).
pub(crate) fn socket_buffer_bytes() -> Vec<(&'static str, u64)> {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let told = PROTOCOLS.into_iter().filter_map(|(line, protocol)| {
        let pages = pages(&text, line)?;
        Some((protocol, pages.saturating_mul(PAGE_BYTES)))
    });
    told.collect()
}

/// The number behind `mem` in this line.
fn pages(text: &str, line: &str) -> Option<u64> {
    let mut lines = text.lines();
    let line = lines.find_map(|it| it.strip_prefix(line)?.strip_prefix(':'))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_in_their_line() {
        let text = "sockets: used 5\nTCP: inuse 2 orphan 0 tw 0 alloc 4 mem 17\n\
                    UDP: inuse 0 mem 3\nUDPLITE: inuse 0\n";
        assert_eq!(pages(text, "TCP"), Some(17));
        assert_eq!(pages(text, "UDP"), Some(3));
        assert_eq!(pages(text, "UDPLITE"), None);
        assert_eq!(pages("", "TCP"), None);
    }
}
