//! A file system for the Raft log that fails on demand and knows what a power failure would leave: everything that was
//! synced, and of the writes since then some prefix, the last of them in part.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

/// The file system. Files are real ones; what is synced of them is kept beside.
#[derive(Default)]
pub(crate) struct FaultyFiles {
    files: Mutex<BTreeMap<PathBuf, Arc<Shadow>>>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    fail_next_sync: AtomicBool,
    fail_next_write: AtomicBool,
}

/// What is known of one file's way to the disk.
#[derive(Default)]
struct Shadow(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl FaultyFiles {
    pub(crate) fn fail_next_sync(&self) {
        self.faults.fail_next_sync.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail_next_write(&self) {
        self.faults.fail_next_write.store(true, Ordering::SeqCst);
    }

    /// Writes the files as a power failure would leave them to another directory.
    pub(crate) fn crash_image(&self, directory: &Path, choose: &mut dyn FnMut(u64) -> u64) {
        std::fs::create_dir_all(directory).expect("a directory of the test");
        for (path, shadow) in locked(&self.files).iter() {
            let contents = locked(&shadow.0);
            let mut image = contents.synced.clone();
            let whole = choose(contents.unsynced.len() as u64 + 1) as usize;
            contents.unsynced.iter().take(whole).for_each(|change| change.apply(&mut image));
            if let Some(Change::Write { offset, bytes }) = contents.unsynced.get(whole) {
                let bytes = bytes[..choose(bytes.len() as u64 + 1) as usize].to_vec();
                Change::Write { offset: *offset, bytes }.apply(&mut image);
            }
            let name = path.file_name().expect("a file of the log has a name");
            std::fs::write(directory.join(name), image).expect("a file of the test");
        }
    }

    fn open_file(&self, path: &Path, file: File) -> Result<FaultyHandle> {
        let mut files = locked(&self.files);
        let known = files.get(path).cloned();
        let shadow = match known {
            Some(shadow) => shadow,
            None => {
                let contents = Contents { synced: std::fs::read(path)?, unsynced: Vec::new() };
                Arc::new(Shadow(Mutex::new(contents)))
            }
        };
        files.insert(path.to_owned(), shadow.clone());
        Ok(FaultyHandle { file, shadow, faults: self.faults.clone() })
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Change::Resize(length) => image.resize(*length, 0),
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len();
                image.resize(image.len().max(end), 0);
                image[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl FileSystem for FaultyFiles {
    type Handle = FaultyHandle;
    type Reader = FaultyFile;
    type Writer = FaultyFile;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<FaultyHandle> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        self.open_file(path.as_ref(), file)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> Result<FaultyHandle> {
        let file = File::options().read(true).write(permission == Permission::ReadWrite).open(&path)?;
        self.open_file(path.as_ref(), file)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        locked(&self.files).remove(path.as_ref());
        std::fs::remove_file(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        let mut files = locked(&self.files);
        std::fs::rename(&from, &to)?;
        if let Some(shadow) = files.remove(from.as_ref()) {
            files.insert(to.as_ref().to_owned(), shadow);
        }
        Ok(())
    }

    fn new_reader(&self, handle: Arc<FaultyHandle>) -> Result<FaultyFile> {
        Ok(FaultyFile { handle, offset: 0 })
    }

    fn new_writer(&self, handle: Arc<FaultyHandle>) -> Result<FaultyFile> {
        Ok(FaultyFile { handle, offset: 0 })
    }
}

/// An open file.
pub(crate) struct FaultyHandle {
    file: File,
    shadow: Arc<Shadow>,
    faults: Arc<Faults>,
}

impl FaultyHandle {
    fn resize(&self, length: usize) -> Result<()> {
        self.file.set_len(length as u64)?;
        locked(&self.shadow.0).unsynced.push(Change::Resize(length));
        Ok(())
    }
}

impl Handle for FaultyHandle {
    fn truncate(&self, offset: usize) -> Result<()> {
        self.resize(offset)
    }

    fn file_size(&self) -> Result<usize> {
        Ok(self.file.metadata()?.len() as usize)
    }

    fn sync(&self) -> Result<()> {
        if self.faults.fail_next_sync.swap(false, Ordering::SeqCst) {
            return Err(Error::other("injected fsync failure"));
        }
        let mut contents = locked(&self.shadow.0);
        for change in std::mem::take(&mut contents.unsynced) {
            change.apply(&mut contents.synced);
        }
        Ok(())
    }
}

/// A position in an open file.
pub(crate) struct FaultyFile {
    handle: Arc<FaultyHandle>,
    offset: usize,
}

impl Read for FaultyFile {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.handle.file.read_at(buffer, self.offset as u64)?;
        self.offset += count;
        Ok(count)
    }
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.handle.faults.fail_next_write.swap(false, Ordering::SeqCst) {
            return Err(Error::other("injected write failure"));
        }
        self.handle.file.write_all_at(bytes, self.offset as u64)?;
        let change = Change::Write { offset: self.offset, bytes: bytes.to_vec() };
        locked(&self.handle.shadow.0).unsynced.push(change);
        self.offset += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Seek for FaultyFile {
    fn seek(&mut self, position: SeekFrom) -> Result<u64> {
        self.offset = match position {
            SeekFrom::Start(offset) => offset as usize,
            SeekFrom::Current(change) => self.offset.saturating_add_signed(change as isize),
            SeekFrom::End(change) => self.handle.file_size()?.saturating_add_signed(change as isize),
        };
        Ok(self.offset as u64)
    }
}

impl WriteExt for FaultyFile {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.offset = offset;
        self.handle.resize(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        self.handle.resize(self.handle.file_size()?.max(offset + size))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked while it held this")
}
