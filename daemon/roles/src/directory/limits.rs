//! What one peer, or all together, may take of a directory (`spec/roles.md` 8.2: the tightest of the deployed
//! limits, `spec/protocol.md` 13.1).

use std::time::Duration;

/// Longest line that is taken, bytes without its end. Reference peers send up to here.
pub const MAX_LINE: usize = 40_000;
/// Longest public message that is passed on, bytes of its text. Twelve offers in one message take 1.2 KiB; what is
/// longer would be multiplied by thousands of recipients for nobody's benefit.
pub const MAX_PUBLIC: usize = 8_192;
/// Longest message of the day, characters.
pub const MAX_MOTD: usize = 1_024;

/// Time from the connection to the handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time to prove the ownership of a nick.
pub const PROOF: Duration = Duration::from_secs(30);
/// Silence after which a peer is asked for a sign of life.
pub const PROBE: Duration = Duration::from_secs(600);
/// Silence after which a peer is taken for dead.
pub const EVICT: Duration = Duration::from_secs(1_500);
/// Time to answer a ping.
pub const PONG: Duration = Duration::from_secs(30);
/// How often silent peers are looked for.
pub const SWEEP: Duration = Duration::from_secs(60);

/// Length of the windows in which requests are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Public messages in a window, apart from requests for the order book.
pub const PUBLIC_PER_WINDOW: u16 = 30;
/// Requests for the order book in a window. Each makes every maker answer.
pub const ORDERBOOK_PER_WINDOW: u16 = 3;
/// Requests for the peer list in a window.
pub const PEER_LIST_PER_WINDOW: u16 = 3;
/// Pings from a peer in a window.
pub const PING_PER_WINDOW: u16 = 6;
/// Lines of any kind: a second's worth in the long run, and at once.
pub const LINES: (f64, u32) = (500.0, 1_000);

/// Shared frames that may wait for a peer. One that is further behind is a slow reader and is closed.
pub const QUEUE: u32 = 256;
/// Frames for one peer alone that may wait for it. Further ones are dropped. The 128 of a deployed directory would
/// lose most of the answers that a taker gets at once when a thousand makers are there.
pub const QUEUE_DIRECTED: u32 = 8_192;
/// Bytes of such frames that may wait for one peer.
pub const DIRECTED_PER_PEER: usize = 4 * 1024 * 1024;
/// Bytes of such frames that may wait in the whole directory; shared frames are few and need no limit.
pub const DIRECTED_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that may wait for each peer even when those are used up, by others who read nothing.
pub const DIRECTED_ALWAYS: usize = 16 * 1024;

/// Entries of one line of a peer list.
pub const CHUNK_ENTRIES: usize = 100;
/// Bytes of one line of a peer list: below what the tightest peer takes, escapes included.
pub const CHUNK_BYTES: usize = 30_000;
/// Makers up to which a peer list names all.
pub const LIST_ALL: usize = 20_000;
/// About how many makers a peer list names when there are more.
pub const LIST_SAMPLE: usize = 4_000;

/// Departures are told at most this often, all since then together: a peer that connects and leaves all the time
/// must not make the directory write to everybody each time.
pub const DEPARTURES: Duration = Duration::from_secs(1);
/// Departures that are told at a time: some 16 lines, well within a queue. When a whole network leaves at once, those
/// who stay hear of it over some seconds.
pub const DEPARTURES_AT_ONCE: usize = 5_000;
