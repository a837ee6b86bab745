//! The table: what was measured, beside what others reached and what we aim at.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

/// What is measured: name, the reference 0.9.12, joinmarket-ng 0.37, aim. The Python figures were measured on
/// a machine of two cores for the project's second issue.
pub(crate) struct Subject {
    key: &'static str,
    name: &'static str,
    reference: &'static str,
    ng: &'static str,
    aim: &'static str,
}

const fn subject(
    key: &'static str,
    name: &'static str,
    reference: &'static str,
    ng: &'static str,
    aim: &'static str,
) -> Subject {
    Subject { key, name, reference, ng, aim }
}

const NONE: &str = "-";
/// Answer times of Python makers for a message: the reference, joinmarket-ng.
const ANSWER: (&str, &str) = ("6 to 60 ms", "up to 550 ms");

/// Every row, in the order of the table.
const SUBJECTS: [Subject; 56] = [
    subject("start", "process start to first `/session`", "0.78 s", "1.90 s", "< 0.05 s"),
    subject(
        "first_start",
        "the same on the very first start (makes the certificate)",
        NONE,
        NONE,
        NONE,
    ),
    subject("memory_idle", "resident memory, idle", "69 MB", "94 MB", "< 15 MiB"),
    subject("memory_small", "resident memory, small wallet open", "76 MB", "105 MB", "< 25 MiB"),
    subject("unlock", "unlock", "0.99 s", "0.53 s", "< 0.6 s"),
    subject("address", "new address (durable before the answer)", NONE, NONE, NONE),
    subject("display_100", "`/display`, 100 used addresses", "2474 ms", "54 ms", NONE),
    subject("utxos_100", "`/utxos`, 100 used addresses", NONE, NONE, NONE),
    subject("send", "`direct-send`", "0.05 s", "seconds", NONE),
    subject(
        "first_unlock_5000",
        "first unlock after 5 000 addresses were funded, until all coins are there",
        NONE,
        "144 s",
        "< 3 s",
    ),
    subject("display_5000", "`/display`, 5 000 used addresses", NONE, "970 ms", "< 20 ms"),
    subject("utxos_5000", "`/utxos`, 5 000 coins", NONE, "740 ms", "< 15 ms"),
    subject("memory_5000", "resident memory of that wallet", NONE, "163 MB", "< 60 MiB"),
    subject(
        "restart_10000",
        "restart, 10 000 used addresses: unlock until in sync",
        NONE,
        NONE,
        "< 3 s",
    ),
    subject(
        "restore_10000",
        "restore from seed, 10 000 used addresses: until all coins are there",
        NONE,
        NONE,
        "< 30 s",
    ),
    subject("memory_10000", "resident memory after that restore", NONE, NONE, NONE),
    subject("display_10000", "`/display`, 10 000 used addresses", NONE, NONE, NONE),
    subject(
        "market_offers",
        "from `!orderbook` to all offers of 300 makers",
        NONE,
        "6 to 7 s",
        "< 0.3 s",
    ),
    subject("market", "the same with 150 bonds verified on the chain", NONE, NONE, NONE),
    subject(
        "market_cpu",
        "processor of the idle daemon on a directory with 100 announcements a second",
        NONE,
        NONE,
        NONE,
    ),
    subject(
        "coinjoin_4",
        "coinjoin with 4 makers on loopback, from the request until it is seen, order book known",
        "36 s",
        "14 s",
        "< 1 s",
    ),
    subject(
        "coinjoin_4_protocol",
        "the same from the first `!fill` to the last `!sig`",
        "2.8 s",
        "2.6 s",
        "< 0.3 s",
    ),
    subject("phase_4_request", "4 makers: from the request to the first phase", NONE, NONE, NONE),
    subject("phase_4_choosing", "4 makers: phase `choosing`", NONE, NONE, NONE),
    subject("phase_4_fill", "4 makers: phase `fill`", NONE, NONE, NONE),
    subject("phase_4_auth", "4 makers: phase `auth`", NONE, NONE, NONE),
    subject("phase_4_sign", "4 makers: phase `sign`", NONE, NONE, NONE),
    subject("phase_4_recheck", "4 makers: phase `recheck`", NONE, NONE, NONE),
    subject("phase_4_broadcast", "4 makers: phase `broadcast`", NONE, NONE, NONE),
    subject("coinjoin_10", "coinjoin with 10 makers", NONE, NONE, NONE),
    subject(
        "coinjoin_10_protocol",
        "the same from the first `!fill` to the last `!sig`",
        NONE,
        NONE,
        NONE,
    ),
    subject("phase_10_request", "10 makers: from the request to the first phase", NONE, NONE, NONE),
    subject("phase_10_choosing", "10 makers: phase `choosing`", NONE, NONE, NONE),
    subject("phase_10_fill", "10 makers: phase `fill`", NONE, NONE, NONE),
    subject("phase_10_auth", "10 makers: phase `auth`", NONE, NONE, NONE),
    subject("phase_10_sign", "10 makers: phase `sign`", NONE, NONE, NONE),
    subject("phase_10_recheck", "10 makers: phase `recheck`", NONE, NONE, NONE),
    subject("phase_10_broadcast", "10 makers: phase `broadcast`", NONE, NONE, NONE),
    subject("answer_1_fill", "one maker, `!fill` to `!pubkey`", ANSWER.0, ANSWER.1, "< 5 ms"),
    subject("answer_1_auth", "one maker, `!auth` to `!ioauth`", ANSWER.0, ANSWER.1, "< 5 ms"),
    subject("answer_1_tx", "one maker, `!tx` to the last `!sig`", ANSWER.0, ANSWER.1, "< 5 ms"),
    subject("answer_4_fill", "4 makers at once, `!fill` to `!pubkey`", ANSWER.0, ANSWER.1, NONE),
    subject("answer_4_auth", "4 makers at once, `!auth` to `!ioauth`", ANSWER.0, ANSWER.1, NONE),
    subject("answer_4_tx", "4 makers at once, `!tx` to the last `!sig`", ANSWER.0, ANSWER.1, NONE),
    subject(
        "memory_maker",
        "resident memory of a maker after these coinjoins (median of ten)",
        "76 MB",
        "105 MB",
        "< 30 MiB",
    ),
    subject("memory_taker", "resident memory of the taker after them", NONE, NONE, NONE),
    subject(
        "book_maker",
        "resident memory of a maker with a book of 3 000 offers and 500 bonds (median of three)",
        "76 MB",
        "105 MB",
        "< 30 MiB",
    ),
    subject("book_taker", "the same of a taker", NONE, NONE, NONE),
    subject("book_maker_round", "of the maker after a coinjoin with ten makers", NONE, NONE, NONE),
    subject("book_taker_round", "of the taker after it", NONE, NONE, NONE),
    subject(
        "soak_maker",
        "resident memory of a maker, at the start and after each 100 of 1 000 coinjoins (median of five)",
        NONE,
        NONE,
        "no slope",
    ),
    subject("soak_maker_slope", "from the 100th to the 1 000th", NONE, NONE, NONE),
    subject("soak_taker", "resident memory of their taker", NONE, NONE, "no slope"),
    subject("soak_taker_slope", "from the 100th to the 1 000th", NONE, NONE, NONE),
    subject(
        "throughput",
        "coinjoins with 4 makers: a directory, 10 makers, 4 takers without a pause",
        NONE,
        NONE,
        NONE,
    ),
    subject("size", "release binary", NONE, NONE, NONE),
];

/// The figures so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    measured: Vec<(String, String)>,
}

impl Report {
    /// No figures yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Notes a figure and shows it.
    pub(crate) fn note(&mut self, key: &str, figure: String) {
        let name = SUBJECTS.iter().find(|subject| subject.key == key).map_or(key, |s| s.name);
        eprintln!("{name}: {figure}");
        self.measured.push((key.to_owned(), figure));
    }

    /// Notes the median of several times, and the longest.
    pub(crate) fn times(&mut self, key: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        let figure = format!("{} (max {}, n = {})", time(middle), time(longest), times.len());
        self.note(key, figure);
    }

    /// The rows as a Markdown table; with `all` also those that were not measured.
    pub(crate) fn table(&self, all: bool) -> String {
        let mut table = String::from(
            "| what | ours | reference 0.9.12 | joinmarket-ng 0.37 | aim |\n|---|---|---|---|---|\n",
        );
        for Subject { key, name, reference, ng, aim } in SUBJECTS {
            let measured = self.measured.iter().find(|(k, _)| *k == key);
            if measured.is_none() && !all {
                continue;
            }
            let ours = measured.map_or(NONE, |(_, figure)| figure);
            writeln!(table, "| {name} | {ours} | {reference} | {ng} | {aim} |")
                .expect("a string takes everything");
        }
        table
    }

    /// Replaces the table and the description of the machine in `docs/benchmarks.md`.
    pub(crate) fn record(&self) -> Result<PathBuf> {
        const BEGIN: &str = "<!-- begin of what `make bench RECORD=1` writes -->\n";
        const END: &str = "<!-- end of what `make bench RECORD=1` writes -->\n";
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md");
        let text = std::fs::read_to_string(&path)?;
        let (before, rest) = text.split_once(BEGIN).unwrap_or((&text, ""));
        let (_, after) = rest.split_once(END).unwrap_or(("", ""));
        let written = format!("{before}{BEGIN}{}\n\n{}{END}{after}", machine(), self.table(true));
        std::fs::write(&path, written)?;
        Ok(path)
    }
}

/// Milliseconds with two digits that count, or seconds.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.1} ms", s * 1e3),
    }
}

/// Mebibytes with one decimal.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// One sentence about the machine: processor, cores, memory, kernel.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| -> String {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processors = read("/proc/cpuinfo");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "Measured on: {}, {cores} cores, memory {}, Linux {}, {}.",
        field(&processors, "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
        std::env::consts::ARCH,
    )
}
