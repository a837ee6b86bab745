//! What the machine wants done.

use joinery_proto::nick::Nick;
use joinery_proto::private_message::PrivateWord;

use super::outcome::Outcome;
use super::progress::Progress;
use crate::ask::{Question, QuestionId};
use crate::event::Source;

/// One thing to do or to know, in order.
#[derive(Debug)]
pub enum Output {
    /// Send a private message. A message that finds no way is lost: the maker's time runs out.
    Send {
        /// To whom.
        to: Nick,
        /// Word.
        word: PrivateWord,
        /// Payload, sealed where the word demands it.
        payload: String,
        /// The way on which the message came that this one answers.
        prefer: Option<Source>,
    },
    /// Answer a question with [`super::Taker::answered`].
    Ask(QuestionId, Question),
    /// Ask the makers for their offers again; new books come with [`super::Taker::book`].
    RefreshBook,
    /// The request as it is now; only when something changed.
    Progress(Box<Progress>),
    /// The request is over. The last output; nothing is held any more except what was signed.
    Finished(Box<Outcome>),
}
