//! What the fuzz targets run: one function per parser of `joinery-proto`, one per side of a conversation and one per
//! machine of `joinery-roles` that strangers talk to. The targets themselves are one line each.
//!
//! A parser function returns whether the input was understood, so that seeds can be picked from the
//! published vectors: see the program `seeds`.

pub mod machines;
pub mod parsers;
mod script;
pub mod session;

/// A target by name. Returns whether the input was understood.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("nick", parsers::nick),
    ("utxo", parsers::utxo),
    ("cjfee", parsers::cjfee),
    ("offer", parsers::offer),
    ("offer_message", parsers::offer_message),
    ("public_message", parsers::public_message),
    ("private_message", parsers::private_message),
    ("line", parsers::line),
    ("fill", parsers::fill),
    ("pubkey", parsers::pubkey),
    ("revelation", parsers::revelation),
    ("commitment", parsers::commitment),
    ("ioauth", parsers::ioauth),
    ("tx", parsers::tx),
    ("push", parsers::push),
    ("sig", parsers::sig),
    ("error_text", parsers::error_text),
    ("bond_proof", parsers::bond_proof),
    ("nacl_box", parsers::nacl_box),
    ("signature", parsers::signature),
    ("message_signature", parsers::message_signature),
    ("irc", parsers::irc),
    ("framing", parsers::framing),
    ("envelope", parsers::envelope),
    ("handshake", parsers::handshake),
    ("location", parsers::location),
    ("onion_name", parsers::onion_name),
    ("peerlist", parsers::peerlist),
    ("nick_auth", parsers::nick_auth),
    ("session_maker", session::maker),
    ("session_taker", session::taker),
    ("machine_channel", machines::channel),
    ("machine_directory", machines::directory),
    ("machine_irc", machines::irc),
    ("machine_order_book", machines::order_book),
];
