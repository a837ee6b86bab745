//! What the machine itself says that a person should know: disk, temperature, power, address.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use rustix::fs::statvfs;

/// Part of the disk that is used from which it is nearly full, percent.
const DISK_FULL: u8 = 90;
/// Temperature from which it is hot, degrees Celsius: where the boards of interest slow themselves down.
const HOT: u8 = 80;
/// Files that are looked at in each directory of the kernel.
const MAX_ENTRIES: usize = 64;

/// The machine at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Used part of the disk with the data directory in percent, when it is nearly full.
    pub(super) disk: Option<u8>,
    /// Temperature in degrees Celsius, when it is hot.
    pub(super) hot: Option<u8>,
    /// The power supply is too weak.
    pub(super) undervoltage: bool,
    /// The address by which the local network reaches us.
    pub(super) address: Option<IpAddr>,
}

impl Facts {
    /// Asks the kernel. Blocks as long as a disk may.
    pub(super) fn look(data: &Path) -> Self {
        let sys = Path::new("/sys/class");
        Self {
            disk: used(data).filter(|percent| *percent >= DISK_FULL),
            hot: temperature(&sys.join("thermal")).filter(|celsius| *celsius >= HOT),
            undervoltage: undervoltage(&sys.join("hwmon")),
            address: address(),
        }
    }
}

/// Percent of what a user may fill.
fn used(path: &Path) -> Option<u8> {
    let disk = statvfs(path).ok()?;
    let free = u128::from(disk.f_bavail);
    let taken = u128::from(disk.f_blocks.saturating_sub(disk.f_bfree));
    let all = taken.saturating_add(free);
    u8::try_from(taken.saturating_mul(100).checked_div(all)?).ok()
}

fn entries(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.take(MAX_ENTRIES).filter_map(|entry| Some(entry.ok()?.path()))
}

/// The hottest zone, degrees Celsius.
fn temperature(thermal: &Path) -> Option<u8> {
    let zones = entries(thermal).filter_map(|zone| {
        let text = fs::read_to_string(zone.join("temp")).ok()?;
        let thousandths: u32 = text.trim().parse().ok()?;
        u8::try_from(thousandths / 1000).ok()
    });
    zones.max()
}

/// The alarm of the Raspberry Pi's power supply, which stays on once it was.
fn undervoltage(hwmon: &Path) -> bool {
    let is = |path: &Path, name: &str, text: &str| {
        fs::read_to_string(path.join(name)).is_ok_and(|found| found.trim() == text)
    };
    entries(hwmon).any(|entry| is(&entry, "name", "rpi_volt") && is(&entry, "in0_lcrit_alarm", "1"))
}

/// The address that packets to the world would carry. Nothing is sent.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // From the range that is set aside for documents.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn reads_what_the_kernel_of_a_pi_shows() {
        let dir = tempfile::tempdir().unwrap();
        let (thermal, hwmon) = (dir.path().join("thermal"), dir.path().join("hwmon"));
        assert_eq!((temperature(&thermal), undervoltage(&hwmon)), (None, false));
        write(&thermal.join("thermal_zone0/temp"), "48312\n");
        write(&thermal.join("thermal_zone1/temp"), "82999\n");
        write(&thermal.join("thermal_zone2/temp"), "-5000\n");
        write(&thermal.join("thermal_zone3/temp"), "rubbish");
        write(&thermal.join("cooling_device0/type"), "fan\n");
        assert_eq!(temperature(&thermal), Some(82));
        write(&hwmon.join("hwmon0/name"), "cpu_thermal\n");
        write(&hwmon.join("hwmon0/in0_lcrit_alarm"), "1\n");
        write(&hwmon.join("hwmon1/name"), "rpi_volt\n");
        write(&hwmon.join("hwmon1/in0_lcrit_alarm"), "0\n");
        assert!(!undervoltage(&hwmon));
        write(&hwmon.join("hwmon1/in0_lcrit_alarm"), "1\n");
        assert!(undervoltage(&hwmon));
    }

    #[test]
    fn a_disk_has_a_used_part() {
        assert!(used(Path::new("/")).is_some_and(|percent| percent <= 100));
        assert_eq!(used(Path::new("/nowhere/at/all")), None);
    }
}
