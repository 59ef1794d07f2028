//! A disk whose power can be cut and whose flushes can fail.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Of so many accesses one is the last before a power cut, on average.
const CUT_EVERY: u32 = 12;

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What is read: everything written.
    written: Vec<u8>,
    /// What a power cut leaves for sure.
    flushed: Vec<u8>,
    /// What it may leave: sectors written since the last flush.
    unflushed: Vec<(usize, Vec<u8>)>,
    rng: StdRng,
    cutting: bool,
    acknowledged: u64,
    /// What was acknowledged when the power went, and what was left on the disk.
    cuts: Vec<(u64, Vec<u8>)>,
    flushes_fail: bool,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            written: Vec::new(),
            flushed: Vec::new(),
            unflushed: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            cutting: false,
            acknowledged: 0,
            cuts: Vec::new(),
            flushes_fail: false,
        })))
    }

    /// A disk that holds what a power cut has left.
    pub(super) fn of(image: Vec<u8>) -> Self {
        let disk = Self::new(0);
        disk.0.lock().flushed.clone_from(&image);
        disk.0.lock().written = image;
        disk
    }

    pub(super) fn cut_power_now_and_then(&self) {
        self.0.lock().cutting = true;
    }

    pub(super) fn acknowledge(&self, revision: u64) {
        self.0.lock().acknowledged = revision;
    }

    pub(super) fn cuts(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.0.lock().cuts)
    }

    pub(super) fn fail_flushes(&self, fail: bool) {
        self.0.lock().flushes_fail = fail;
    }
}

impl State {
    /// Before each access: notes what would be left if the power went now.
    fn maybe_cut(&mut self) {
        if !self.cutting || !self.rng.random_ratio(1, CUT_EVERY) {
            return;
        }
        let mut image = self.flushed.clone();
        image.resize(self.written.len(), 0);
        let chance = [0.0, 0.1, 0.5, 0.9, 1.0][self.rng.random_range(0..5)];
        for (offset, sector) in &self.unflushed {
            let end = offset + sector.len();
            if end <= image.len() && self.rng.random_bool(chance) {
                image[*offset..end].copy_from_slice(sector);
            }
        }
        self.cuts.push((self.acknowledged, image));
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let offset = offset as usize;
        let state = self.0.lock();
        let read = state.written.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(read);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.0.lock();
        state.maybe_cut();
        state.written.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.0.lock();
        state.maybe_cut();
        if state.flushes_fail {
            return Err(io::Error::other("the disk is gone"));
        }
        let written = state.written.clone();
        state.flushed = written;
        state.unflushed.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut offset = offset as usize;
        let mut state = self.0.lock();
        state.maybe_cut();
        state
            .written
            .get_mut(offset..offset + data.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        for sector in data.chunks(SECTOR_BYTES) {
            state.unflushed.push((offset, sector.to_vec()));
            offset += sector.len();
        }
        Ok(())
    }
}
