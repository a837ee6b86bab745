//! A file system for crash tests: it remembers what is durable and what only memory knows, fails or loses
//! power at a chosen operation, and then forgets like a real one (torn writes, zero-filled tails, names
//! that come back).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskFile};

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails, perhaps half done; everything later works.
    Once,
    /// It fails, perhaps half done, and so does everything later.
    PowerCut,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    /// States of the directory since it was last synced, oldest first.
    history: Vec<BTreeMap<PathBuf, usize>>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    off: bool,
    rng: StdRng,
}

#[derive(Debug, Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            history: vec![BTreeMap::new()],
            operations: 0,
            fault: None,
            off: false,
            rng: StdRng::seed_from_u64(seed),
        })))
    }

    /// Breaks the `n`-th writing operation from now, counted from 0.
    pub(super) fn break_at(&self, n: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + n, fault));
    }

    /// Whether the fault has happened.
    pub(super) fn broke(&self) -> bool {
        let state = self.state();
        state.fault.is_some_and(|(at, _)| state.operations > at)
    }

    /// Forgets what was not durable, or parts of it, and works again.
    pub(super) fn restart(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        for inode in &mut state.inodes {
            let kept = state.rng.random_range(0..=inode.data.len());
            inode.durable = match state.rng.random_range(0..4) {
                0 => inode.durable.clone(),
                1 => inode.data.clone(),
                // The new length, but bytes only up to somewhere.
                2 => mixed(inode, kept, inode.data.len()),
                _ => mixed(inode, kept, kept.max(inode.durable.len().min(inode.data.len()))),
            };
            inode.data = inode.durable.clone();
        }
        let choice = state.rng.random_range(0..state.history.len());
        state.names = state.history[choice].clone();
        state.history = vec![state.names.clone()];
        state.fault = None;
        state.off = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the disk")
    }

    /// Counts an operation. `Err`: it must fail; the flag tells whether to do it half before.
    fn step(&self) -> Result<MutexGuard<'_, State>, (MutexGuard<'_, State>, bool)> {
        let mut state = self.state();
        if state.off {
            return Err((state, false));
        }
        let at = state.operations;
        state.operations += 1;
        match state.fault {
            Some((when, fault)) if when == at => {
                state.off = fault == Fault::PowerCut;
                let half = state.rng.random();
                Err((state, half))
            }
            _ => Ok(state),
        }
    }
}

/// Old durable bytes where nothing changed, new ones before `kept`, zeros after; `len` bytes in all.
fn mixed(inode: &Inode, kept: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| match (inode.data.get(at), inode.durable.get(at)) {
            (Some(new), Some(old)) if new == old => *new,
            (Some(new), _) if at < kept => *new,
            (_, Some(old)) => *old,
            _ => 0,
        })
        .collect()
}

fn broken() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].data.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let rest = state.inodes[self.inode].data.get(offset..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let put = |state: &mut State, n: usize| {
            let data = &mut state.inodes[self.inode].data;
            data.resize(data.len().max(offset + n), 0);
            data[offset..offset + n].copy_from_slice(&buf[..n]);
        };
        match self.disk.step() {
            Ok(mut state) => put(&mut state, buf.len()),
            Err((mut state, half)) => {
                if half {
                    let n = state.rng.random_range(0..=buf.len());
                    put(&mut state, n);
                }
                return Err(broken());
            }
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut state = self.disk.step().map_err(|_| broken())?;
        state.inodes[self.inode].data.resize(len, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.disk.step() {
            Ok(mut state) => {
                let inode = &mut state.inodes[self.inode];
                inode.durable = inode.data.clone();
                Ok(())
            }
            Err((mut state, half)) => {
                if half {
                    let inode = &mut state.inodes[self.inode];
                    inode.durable = inode.data.clone();
                }
                Err(broken())
            }
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        let inode = self.state().names.get(path).copied();
        Ok(inode.map(|inode| Box::new(SimFile { disk: self.clone(), inode }) as Box<dyn DiskFile>))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.step().map_err(|_| broken())?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(path.to_path_buf(), inode);
        let now = state.names.clone();
        state.history.push(now);
        drop(state);
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let act = |state: &mut State| {
            let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_path_buf(), inode);
            let now = state.names.clone();
            state.history.push(now);
            Ok(())
        };
        match self.step() {
            Ok(mut state) => act(&mut state),
            Err((mut state, half)) => {
                // An error and yet done: only before a power cut, as of a journalled file system.
                if half && state.off {
                    act(&mut state)?;
                }
                Err(broken())
            }
        }
    }

    fn keep_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step().map_err(|_| broken())?;
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), inode);
        let now = state.names.clone();
        state.history.push(now);
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().names.contains_key(path)
    }

    fn sync_parent(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.step().map_err(|_| broken())?;
        state.history = vec![state.names.clone()];
        Ok(())
    }
}
