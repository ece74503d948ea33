//! A disk that forgets what was not synced, below SQLite's own file layer.
//!
//! The shim is a VFS (<https://www.sqlite.org/vfs.html>) that hands everything
//! to the unix one and, for files of watched folders, keeps beside it what the
//! platter would hold: the bytes as of the last sync and the writes since. A
//! power cut keeps any of those writes, or sectors of them, and loses the rest.
//! A test's [`Plan`] is asked before each operation and may take a cut, let the
//! operation fail, or let a sync lie.
//!
//! What it does not model: making and deleting files is durable at once (SQLite
//! syncs the folder with the first sync of a log), and shared memory is never
//! restored (as after a real cut).

// SQLite's VFS is an interface in C.
#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    ffi::{CStr, c_int, c_void},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rusqlite::ffi::{
    SQLITE_OK, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
    sqlite3_vfs_register,
};

/// What a drive writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What SQLite is about to do to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Write,
    Truncate,
    Sync,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Do,
    /// Nothing is done and SQLite is told this code. A sync that fails also
    /// loses what it should have synced, as Linux does.
    Fail(c_int),
    /// A sync only: SQLite is told that it went well.
    Lie,
}

/// Asked before each operation on a watched folder.
pub(crate) type Plan = Box<dyn FnMut(Operation, &Platter) -> Verdict + Send>;

/// A watched folder as the drive has it. Files by name.
#[derive(Debug, Default)]
pub(crate) struct Platter(HashMap<String, FileImage>);

/// The files of a folder after a power cut.
pub(crate) type Image = HashMap<String, Vec<u8>>;

/// How much of what was not synced a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Nothing,
    Everything,
    /// Any of the writes, whole.
    SomeWrites,
    /// Any sectors of any of the writes.
    SomeSectors,
}

/// A small random generator (splitmix64), so that a cut can be repeated.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

#[derive(Debug, Default)]
struct FileImage {
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { bytes: usize },
}

struct Folder {
    platter: Platter,
    plan: Plan,
}

/// A file that SQLite has open in a watched folder.
#[derive(Clone)]
struct OpenFile {
    folder: Arc<Mutex<Folder>>,
    name: String,
    /// The functions that unix gave it; they differ by kind of file.
    original: &'static sqlite3_io_methods,
}

#[derive(Default)]
struct Shim {
    folders: HashMap<PathBuf, Arc<Mutex<Folder>>>,
    open: HashMap<usize, OpenFile>,
    /// By the address of a table of functions: one that records and passes on to it.
    recording: HashMap<usize, &'static sqlite3_io_methods>,
}

/// SQLite's own VFS.
struct Unix(*mut sqlite3_vfs);

// SAFETY: the VFS is a static of SQLite and is only read.
unsafe impl Send for Unix {}
// SAFETY: likewise.
unsafe impl Sync for Unix {}

static UNIX: OnceLock<Unix> = OnceLock::new();
static SHIM: Mutex<Option<Shim>> = Mutex::new(None);

/// Watches a folder, which SQLite must not have open yet.
pub(crate) fn watch(folder: &Path, plan: Plan) {
    install();
    let watched = Folder {
        platter: Platter::default(),
        plan,
    };
    with_shim(|shim| {
        (shim.folders).insert(folder.to_owned(), Arc::new(Mutex::new(watched)));
    });
}

/// What a power cut would leave of a watched folder now.
pub(crate) fn cut_now(folder: &Path, cut: Cut, random: &mut Random) -> Image {
    let watched = with_shim(|shim| Arc::clone(&shim.folders[folder]));
    locked(&watched).platter.after(cut, random)
}

// === impl Random ===

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

// === impl Platter ===

impl Platter {
    /// The files as a power cut would leave them.
    pub(crate) fn after(&self, cut: Cut, random: &mut Random) -> Image {
        (self.0.iter())
            .map(|(name, file)| (name.clone(), file.after(cut, random)))
            .collect()
    }
}

// === impl FileImage ===

impl FileImage {
    fn after(&self, cut: Cut, random: &mut Random) -> Vec<u8> {
        let mut file = self.synced.clone();
        for change in &self.since {
            match (cut, change) {
                (Cut::Nothing, _) => {}
                (Cut::Everything, change) => change.apply(&mut file),
                (Cut::SomeSectors, Change::Write { at, bytes }) => {
                    for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if random.below(2) == 0 {
                            write(&mut file, at + number * SECTOR_BYTES, sector);
                        }
                    }
                }
                (_, change) => {
                    if random.below(2) == 0 {
                        change.apply(&mut file);
                    }
                }
            }
        }
        file
    }

    fn sync(&mut self) {
        for change in self.since.drain(..) {
            change.apply(&mut self.synced);
        }
    }
}

// === impl Change ===

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => write(file, *at, bytes),
            Change::Truncate { bytes } => file.truncate(*bytes),
        }
    }
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_shim<T>(act: impl FnOnce(&mut Shim) -> T) -> T {
    act(locked(&SHIM).get_or_insert_with(Shim::default))
}

/// Makes the shim SQLite's default VFS, once.
fn install() {
    UNIX.get_or_init(|| {
        // SAFETY: asks for the default VFS, which lives for ever; its copy is
        // leaked, so it does too, and its functions get the original back
        // wherever they look at the VFS itself (`open`) or do not care.
        let unix = unsafe {
            let unix = sqlite3_vfs_find(std::ptr::null());
            let mut shim = *unix;
            shim.pNext = std::ptr::null_mut();
            shim.zName = c"forgetful".as_ptr();
            shim.xOpen = Some(open);
            shim.xDelete = Some(delete);
            let code = sqlite3_vfs_register(Box::leak(Box::new(shim)), 1);
            assert_eq!(code, SQLITE_OK);
            unix
        };
        Unix(unix)
    });
}

fn unix() -> *mut sqlite3_vfs {
    UNIX.get().expect("called through the installed shim").0
}

fn open_file(file: *mut sqlite3_file) -> OpenFile {
    with_shim(|shim| shim.open[&(file as usize)].clone())
}

/// The folder and the name of a path.
fn split(path: &CStr) -> Option<(PathBuf, String)> {
    let path = Path::new(path.to_str().ok()?);
    let name = path.file_name()?.to_str()?.to_owned();
    Some((path.parent()?.to_owned(), name))
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    path: *const std::ffi::c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let unix = unix();
    // SAFETY: SQLite's own arguments, handed to the VFS that they were made for.
    let code = unsafe { (*unix).xOpen.unwrap()(unix, path, file, flags, flags_out) };
    if code != SQLITE_OK || path.is_null() {
        return code;
    }
    // SAFETY: a name that SQLite passes ends in a zero byte.
    let Some((folder, name)) = split(unsafe { CStr::from_ptr(path) }) else {
        return code;
    };
    let Some(folder) = with_shim(|shim| shim.folders.get(&folder).cloned()) else {
        return code;
    };
    locked(&folder).platter.0.entry(name.clone()).or_default();
    // SAFETY: `open` has filled the file in, and its table is a static of SQLite.
    let original: &'static sqlite3_io_methods = unsafe { &*(*file).pMethods };
    with_shim(|shim| {
        let address = std::ptr::from_ref(original) as usize;
        let recording = shim.recording.entry(address).or_insert_with(|| {
            Box::leak(Box::new(sqlite3_io_methods {
                xWrite: Some(record_write),
                xTruncate: Some(record_truncate),
                xSync: Some(record_sync),
                xClose: Some(close),
                ..*original
            }))
        });
        // SAFETY: the new table differs in four functions, which pass on to the old one.
        unsafe { (*file).pMethods = *recording };
        let opened = OpenFile {
            folder,
            name,
            original,
        };
        shim.open.insert(file as usize, opened);
    });
    code
}

unsafe extern "C" fn delete(
    _: *mut sqlite3_vfs,
    path: *const std::ffi::c_char,
    sync: c_int,
) -> c_int {
    let unix = unix();
    // SAFETY: SQLite's own arguments; a path ends in a zero byte.
    let (code, path) = unsafe {
        (
            (*unix).xDelete.unwrap()(unix, path, sync),
            CStr::from_ptr(path),
        )
    };
    if let Some((folder, name)) = split(path)
        && let Some(folder) = with_shim(|shim| shim.folders.get(&folder).cloned())
    {
        locked(&folder).platter.0.remove(&name);
    }
    code
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let original = open_file(file).original;
    with_shim(|shim| shim.open.remove(&(file as usize)));
    // SAFETY: the function that the file was opened with.
    unsafe { original.xClose.unwrap()(file) }
}

/// Asks the plan, does what it says, and notes what was done.
fn record(
    file: *mut sqlite3_file,
    operation: Operation,
    act: impl FnOnce(&sqlite3_io_methods) -> c_int,
    note: impl FnOnce(&mut FileImage),
) -> c_int {
    let open = open_file(file);
    let mut folder = locked(&open.folder);
    let Folder { platter, plan } = &mut *folder;
    let verdict = plan(operation, platter);
    let image = platter.0.entry(open.name).or_default();
    match verdict {
        Verdict::Do => {
            let code = act(open.original);
            if code == SQLITE_OK {
                note(image);
            }
            code
        }
        Verdict::Fail(code) => {
            if operation == Operation::Sync {
                image.since.clear();
            }
            code
        }
        Verdict::Lie => SQLITE_OK,
    }
}

unsafe extern "C" fn record_write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite's own arguments: `bytes` has `count` bytes.
    let act =
        |original: &sqlite3_io_methods| unsafe { original.xWrite.unwrap()(file, bytes, count, at) };
    record(file, Operation::Write, act, |image| {
        // SAFETY: likewise.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count as usize) };
        image.since.push(Change::Write {
            at: at as usize,
            bytes: bytes.to_vec(),
        });
    })
}

unsafe extern "C" fn record_truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: SQLite's own arguments.
    let act = |original: &sqlite3_io_methods| unsafe { original.xTruncate.unwrap()(file, size) };
    record(file, Operation::Truncate, act, |image| {
        let bytes = size as usize;
        image.since.push(Change::Truncate { bytes });
    })
}

unsafe extern "C" fn record_sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    // The platter is what counts here; the real disk need not be made to wait.
    record(file, Operation::Sync, |_| SQLITE_OK, FileImage::sync)
}
