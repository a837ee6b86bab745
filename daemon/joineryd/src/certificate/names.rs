//! The names and addresses under which this machine can be reached (`spec/api.md` 1.2).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{Http, is_host_name};

/// Addresses that go into a certificate; a machine with more has bridges and containers that nobody means.
const MAX_ADDRESSES: usize = 32;

/// What a certificate made now is to be valid for: `localhost`, host name, `HOST.local`, the configured names,
/// loopback, the address that is listened on, the addresses of the network interfaces.
pub(crate) fn of_this_machine(http: &Http) -> Vec<String> {
    let mut names = dns_names(http);
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let listening = [http.listen.ip(), http.wss_listen.ip()];
    for address in listening.into_iter().chain(interface_addresses()) {
        if !address.is_unspecified()
            && !addresses.contains(&address)
            && addresses.len() < MAX_ADDRESSES
        {
            addresses.push(address);
        }
    }
    names.extend(addresses.iter().map(ToString::to_string));
    names
}

/// The names alone: what may stand in a `Host` header besides addresses.
pub(crate) fn dns_names(http: &Http) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let mut add = |name: String| {
        if is_host_name(&name) && !names.contains(&name) {
            names.push(name);
        }
    };
    // A host name with a domain is found by multicast under its first label.
    let short = host.split('.').next().unwrap_or_default().to_owned();
    add(host);
    if !short.is_empty() && short != "localhost" {
        add(format!("{short}.local"));
        add(short);
    }
    for name in &http.names {
        add(name.clone());
    }
    names
}

/// Addresses of this machine's interfaces, from what Linux shows under `/proc/net`. None when it shows nothing.
fn interface_addresses() -> BTreeSet<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let v4 = local_v4(&read("/proc/net/fib_trie")).into_iter().map(IpAddr::V4);
    let v6 = local_v6(&read("/proc/net/if_inet6")).into_iter().map(IpAddr::V6);
    v4.chain(v6).filter(|address| !address.is_loopback()).collect()
}

/// The addresses of a routing table that it calls local to this host: a line with the address, then one with
/// `/32 host LOCAL`.
fn local_v4(table: &str) -> BTreeSet<Ipv4Addr> {
    let mut found = BTreeSet::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in table.lines() {
        let line = line.trim_start();
        if let Some(text) = line.strip_prefix("|-- ") {
            last = text.trim().parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last);
        }
    }
    found
}

/// The global addresses of a list of interfaces: 32 hexadecimal digits, index, prefix length, scope (0 is global).
fn local_v6(list: &str) -> BTreeSet<Ipv6Addr> {
    list.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let digits = words.next().filter(|digits| digits.len() == 32)?;
            let address = u128::from_str_radix(digits, 16).ok()?;
            (words.nth(2)? == "00").then(|| Ipv6Addr::from(address))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_routing_table_of_linux() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                     \x20    +-- 127.0.0.0/8 2 0 2\n        |-- 127.0.0.1\n              /32 host LOCAL\n\
                     \x20    |-- 192.0.2.0\n              /24 link UNICAST\n           |-- 192.0.2.2\n\
                     \x20             /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n";
        let expected = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 2)];
        assert_eq!(local_v4(table), expected.into_iter().collect());
    }

    #[test]
    fn reads_global_addresses_of_version_6_only() {
        let list = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n\
                    fd000000000000000000000000000002 04 40 00 82     eth0\nrubbish\n";
        assert_eq!(local_v6(list), ["fd00::2".parse().unwrap()].into_iter().collect());
    }
}
