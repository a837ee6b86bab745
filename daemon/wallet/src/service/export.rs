//! What a wallet file of the reference is made of, taken from keys and store of a wallet that is not
//! running.

use std::collections::BTreeMap;

use super::ServiceError;
use super::open::{empty_index, first_facts, load_graph};
use super::state::branch_number;
use super::view::keychains;
use crate::directory::OpenedKeys;
use crate::file::jmdat_export::{Export, ListedCoin};
use crate::store::Store;
use crate::types::Mixdepth;

/// Collects the export of a wallet from its last stored state.
pub(crate) fn export_of<'a>(
    keys: &'a OpenedKeys,
    store: &mut dyn Store,
) -> Result<Export<'a>, ServiceError> {
    let (index, _) = empty_index(keys)?;
    let graph = load_graph(keys, store, index)?.graph;
    let mut facts = store.facts().clone();
    // What a foreign file knew counts even if the wallet never ran since.
    first_facts(keys, store, false).iter().for_each(|fact| facts.apply(fact));
    let mut next_unused: BTreeMap<(u8, u8), u32> = facts.issued;
    for keychain in keychains(Mixdepth(keys.max_mixdepth())) {
        let key = (keychain.mixdepth.0, branch_number(keychain.branch));
        let next = next_unused.entry(key).or_default();
        *next = (*next).max(graph.index().next_unused(keychain));
    }
    let coins = graph.canonical().coins.into_iter().map(|coin| ListedCoin {
        outpoint: coin.outpoint,
        value: coin.value,
        place: coin.place,
        height: coin.height,
    });
    Ok(Export {
        keys: keys.master(),
        entropy: keys.entropy(),
        extension: keys.extension(),
        created: keys.created(),
        max_mixdepth: keys.max_mixdepth(),
        next_unused,
        frozen: facts.frozen.into_iter().map(|(coin, (frozen, _))| (coin, frozen)).collect(),
        labels: facts.labels,
        coins: coins.collect(),
    })
}
