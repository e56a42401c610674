//! Open cursors: what is left of a result, found again by number.
//!
//! Always holds: a cursor is used by one `getMore` at a time (it is taken out of the registry meanwhile), of the session
//! that opened it, with which it ends; one that nobody asked for since `CURSOR_IDLE_MS_MAX` is closed; a connection opens
//! no more than `CURSORS_PER_CONNECTION_MAX`.

use std::collections::BTreeMap;
use std::time::Duration;

use base::limits::{CURSOR_IDLE_MS_MAX, CURSORS_PER_CONNECTION_MAX};
use base::{Code, Entropy, Error, MonoTime, Result, SessionId};
use parking_lot::Mutex;

use crate::aggregate::AggregateCursor;
use crate::command::CursorId;
use crate::gather::Gather;
use crate::scan::ScanCursor;

/// What is left of a result.
pub(crate) enum Cursor {
    /// Of a client's find.
    Find(Box<Gather>),
    /// Of a client's aggregation.
    Aggregate(Box<AggregateCursor>),
    /// Of one shard's part of either, for the router that merges.
    Scan(Box<ScanCursor>),
}

/// An open cursor with what is checked before it is used.
pub(crate) struct OpenCursor {
    pub(crate) namespace: String,
    /// The connection that opened it.
    pub(crate) connection: u64,
    pub(crate) session: Option<SessionId>,
    pub(crate) cursor: Cursor,
}

enum Slot {
    Idle { open: Box<OpenCursor>, since: MonoTime },
    InUse { namespace: String, connection: u64, session: Option<SessionId>, is_part: bool, killed: bool },
}

/// The open cursors of a node.
#[derive(Default)]
pub(crate) struct Registry {
    slots: Mutex<BTreeMap<CursorId, Slot>>,
}

impl Registry {
    /// Registers a cursor under a fresh number. Fails with `OperationFailed` (96) when its connection has as many open
    /// as it may.
    pub(crate) fn insert(&self, open: OpenCursor, entropy: &dyn Entropy, now: MonoTime) -> Result<CursorId> {
        let mut slots = self.slots.lock();
        // A part is one of a cursor that was counted where its client is.
        let of_connection = |slot: &&Slot| slot.connection() == open.connection && !slot.is_part();
        // Counting costs something only where a node has this many cursors open.
        if slots.len() >= CURSORS_PER_CONNECTION_MAX
            && !open.is_part()
            && slots.values().filter(of_connection).count() >= CURSORS_PER_CONNECTION_MAX
        {
            let message = format!(
                "this connection has {CURSORS_PER_CONNECTION_MAX} open cursors, and may not have more: read them to \
                 their end, or close them with killCursors"
            );
            return Err(Error::new(Code::OPERATION_FAILED, message));
        }
        loop {
            let id = CursorId(i64::try_from(entropy.next_u64() >> 1).expect("63 bits fit"));
            if id.0 != 0 && !slots.contains_key(&id) {
                slots.insert(id, Slot::Idle { open: Box::new(open), since: now });
                return Ok(id);
            }
        }
    }

    /// Takes a cursor out for use. Fails with `CursorNotFound` (43), `CursorInUse` (12051) while another uses it, and
    /// 50799 to 50801 in another session than its own.
    pub(crate) fn take(
        &self,
        id: CursorId,
        namespace: &str,
        session: Option<SessionId>,
    ) -> Result<OpenCursor> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&id).ok_or_else(|| not_found(id))?;
        let found = slot.namespace();
        if found != namespace {
            let message =
                format!("Requested getMore on namespace '{namespace}', but cursor belongs to '{found}'");
            return Err(Error::new(Code::UNAUTHORIZED, message));
        }
        check_session(id, slot.session(), session)?;
        let (namespace, connection) = (namespace.to_owned(), slot.connection());
        let in_use = Slot::InUse { namespace, connection, session, is_part: slot.is_part(), killed: false };
        match std::mem::replace(slot, in_use) {
            Slot::Idle { open, .. } => Ok(*open),
            busy @ Slot::InUse { .. } => {
                *slot = busy;
                Err(Error::new(Code(12_051), format!("cursor id {} is already in use", id.0)))
            }
        }
    }

    /// Gives a cursor back after use, unless it was killed meanwhile.
    pub(crate) fn put_back(&self, id: CursorId, open: OpenCursor, now: MonoTime) -> bool {
        let mut slots = self.slots.lock();
        match slots.get_mut(&id) {
            Some(slot @ Slot::InUse { killed: false, .. }) => {
                *slot = Slot::Idle { open: Box::new(open), since: now };
                true
            }
            _ => {
                slots.remove(&id);
                false
            }
        }
    }

    /// Forgets a cursor that was taken out and is exhausted.
    pub(crate) fn finish(&self, id: CursorId) {
        self.slots.lock().remove(&id);
    }

    /// Closes a cursor of this namespace. Says whether there was one.
    pub(crate) fn kill(&self, id: CursorId, namespace: &str) -> bool {
        let mut slots = self.slots.lock();
        match slots.get_mut(&id) {
            Some(Slot::Idle { open, .. }) if open.namespace == namespace => {
                let closed = slots.remove(&id);
                // It may close others of this registry as it goes.
                drop(slots);
                closed.is_some()
            }
            Some(Slot::InUse { namespace: found, killed, .. }) if found == namespace => {
                *killed = true;
                true
            }
            _ => false,
        }
    }

    /// Closes the cursors of the sessions that `ended` selects; one that is in use, as soon as it is not.
    pub(crate) fn kill_sessions(&self, ended: impl Fn(SessionId) -> bool) {
        self.close(|slot| slot.session().is_some_and(&ended));
    }

    /// Closes all cursors of a namespace; one that is in use, as soon as it is not.
    pub(crate) fn kill_namespace(&self, namespace: &str) {
        self.close(|slot| slot.namespace() == namespace);
    }

    fn close(&self, concerns: impl Fn(&Slot) -> bool) {
        self.remove(|slot| {
            let concerned = concerns(slot);
            match slot {
                Slot::Idle { .. } => concerned,
                Slot::InUse { killed, .. } => {
                    *killed |= concerned;
                    false
                }
            }
        });
    }

    /// Closes the cursors that `ends` selects. They go once the registry is free again: one may close others of it.
    fn remove(&self, mut ends: impl FnMut(&mut Slot) -> bool) {
        let closed: Vec<_> = self.slots.lock().extract_if(.., |_, slot| ends(slot)).collect();
        drop(closed);
    }

    /// Closes cursors that have been idle for too long.
    pub(crate) fn expire(&self, now: MonoTime) {
        let idle_max = Duration::from_millis(CURSOR_IDLE_MS_MAX);
        let expired = |slot: &Slot| matches!(slot, Slot::Idle { since, .. } if now.since(*since) > idle_max);
        self.remove(|slot| expired(slot));
    }

    /// How many of clients are open.
    pub(crate) fn len(&self) -> usize {
        self.slots.lock().values().filter(|slot| !slot.is_part()).count()
    }

    /// How many parts of cursors are open, for routers here and on other nodes.
    pub(crate) fn parts(&self) -> usize {
        self.slots.lock().values().filter(|slot| slot.is_part()).count()
    }
}

impl OpenCursor {
    fn is_part(&self) -> bool {
        matches!(self.cursor, Cursor::Scan(_))
    }
}

impl Slot {
    fn namespace(&self) -> &str {
        match self {
            Slot::Idle { open, .. } => &open.namespace,
            Slot::InUse { namespace, .. } => namespace,
        }
    }

    fn connection(&self) -> u64 {
        match self {
            Slot::Idle { open, .. } => open.connection,
            Slot::InUse { connection, .. } => *connection,
        }
    }

    fn is_part(&self) -> bool {
        match self {
            Slot::Idle { open, .. } => open.is_part(),
            Slot::InUse { is_part, .. } => *is_part,
        }
    }

    fn session(&self) -> Option<SessionId> {
        match self {
            Slot::Idle { open, .. } => open.session,
            Slot::InUse { session, .. } => *session,
        }
    }
}

fn check_session(id: CursorId, opened_in: Option<SessionId>, asked_in: Option<SessionId>) -> Result<()> {
    let id = id.0;
    let (code, reason) = match (opened_in, asked_in) {
        (None, Some(asked)) => (50_799, format!("was not created in a session, in session {asked:?}")),
        (Some(own), None) => (50_800, format!("was created in session {own:?}, without an lsid")),
        (Some(own), Some(asked)) if own != asked => {
            (50_801, format!("was created in session {own:?}, in session {asked:?}"))
        }
        _ => return Ok(()),
    };
    Err(Error::new(Code(code), format!("Cannot run getMore on cursor {id}, which {reason}")))
}

fn not_found(id: CursorId) -> Error {
    Error::new(Code::CURSOR_NOT_FOUND, format!("cursor id {} not found", id.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(std::sync::atomic::AtomicU64);

    impl Entropy for Count {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        }
    }

    const OWN: Option<SessionId> = Some(SessionId([1; 16]));
    const OTHER: Option<SessionId> = Some(SessionId([2; 16]));

    fn open() -> OpenCursor {
        opened_by(1)
    }

    fn opened_by(connection: u64) -> OpenCursor {
        OpenCursor {
            namespace: "a.b".into(),
            connection,
            session: OWN,
            cursor: Cursor::Aggregate(Box::new(AggregateCursor::exhausted())),
        }
    }

    #[test]
    fn a_cursor_is_used_by_one_at_a_time_and_never_has_number_zero() {
        let (registry, entropy) = (Registry::default(), Count(0.into()));
        let id = registry.insert(open(), &entropy, MonoTime::default()).expect("registered");
        assert_ne!(id.0, 0);
        assert_eq!(registry.take(id, "a.c", OWN).err().map(|error| error.code), Some(Code::UNAUTHORIZED));
        let taken = registry.take(id, "a.b", OWN).expect("idle");
        assert_eq!(registry.take(id, "a.b", OWN).err().map(|error| error.code), Some(Code(12_051)));
        assert!(registry.put_back(id, taken, MonoTime::default()));
        assert!(registry.take(id, "a.b", OWN).is_ok());
    }

    #[test]
    fn a_cursor_serves_the_session_that_opened_it_only() {
        let (registry, entropy) = (Registry::default(), Count(7.into()));
        let id = registry.insert(open(), &entropy, MonoTime::default()).expect("registered");
        let refused = |id, session| registry.take(id, "a.b", session).err().map(|error| error.code);
        assert_eq!(refused(id, None), Some(Code(50_800)));
        assert_eq!(refused(id, OTHER), Some(Code(50_801)));
        let free = OpenCursor { session: None, ..open() };
        let free = registry.insert(free, &entropy, MonoTime::default()).expect("registered");
        assert_eq!(refused(free, OWN), Some(Code(50_799)));
        assert_eq!(refused(free, None), None);
        assert_eq!(refused(id, OWN), None);
    }

    #[test]
    fn a_session_ends_with_its_cursors_and_no_others() {
        let (registry, entropy) = (Registry::default(), Count(7.into()));
        let insert = |session| {
            let open = OpenCursor { session, ..open() };
            registry.insert(open, &entropy, MonoTime::default()).expect("registered")
        };
        let (idle, used, other, free) = (insert(OWN), insert(OWN), insert(OTHER), insert(None));
        let taken = registry.take(used, "a.b", OWN).expect("idle");
        registry.kill_sessions(|session| Some(session) == OWN);
        assert!(!registry.put_back(used, taken, MonoTime::default()), "it ends when its use does");
        assert!(registry.take(idle, "a.b", OWN).is_err());
        assert!(registry.take(other, "a.b", OTHER).is_ok());
        assert!(registry.take(free, "a.b", None).is_ok());
    }

    #[test]
    fn a_dropped_namespace_closes_its_cursors_and_no_others() {
        let (registry, entropy) = (Registry::default(), Count(0.into()));
        let insert = |open| registry.insert(open, &entropy, MonoTime::default()).expect("registered");
        let (idle, used) = (insert(open()), insert(open()));
        let other = insert(OpenCursor { namespace: "a.c".into(), ..open() });
        let taken = registry.take(used, "a.b", OWN).expect("idle");
        registry.kill_namespace("a.b");
        assert_eq!(
            registry.take(idle, "a.b", OWN).err().map(|error| error.code),
            Some(Code::CURSOR_NOT_FOUND)
        );
        assert!(!registry.put_back(used, taken, MonoTime::default()));
        assert!(registry.take(other, "a.c", OWN).is_ok());
    }

    #[test]
    fn a_cursor_killed_while_in_use_does_not_come_back() {
        let (registry, entropy) = (Registry::default(), Count(7.into()));
        let id = registry.insert(open(), &entropy, MonoTime::default()).expect("registered");
        let taken = registry.take(id, "a.b", OWN).expect("idle");
        assert!(registry.kill(id, "a.b"));
        assert!(!registry.put_back(id, taken, MonoTime::default()));
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn an_idle_cursor_expires() {
        let (registry, entropy) = (Registry::default(), Count(7.into()));
        registry.insert(open(), &entropy, MonoTime::default()).expect("registered");
        registry.expire(MonoTime(Duration::from_millis(CURSOR_IDLE_MS_MAX)));
        assert_eq!(registry.len(), 1);
        registry.expire(MonoTime(Duration::from_millis(CURSOR_IDLE_MS_MAX + 1)));
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_connection_opens_cursors_up_to_its_limit_and_takes_none_from_others() {
        let (registry, entropy) = (Registry::default(), Count(7.into()));
        let insert = |connection| registry.insert(opened_by(connection), &entropy, MonoTime::default());
        let mut ids = Vec::new();
        for _ in 0..CURSORS_PER_CONNECTION_MAX {
            ids.push(insert(1).expect("within the limit"));
        }
        let refusal = insert(1).expect_err("one too many");
        assert_eq!(refusal.code, Code::OPERATION_FAILED);
        assert!(insert(2).is_ok(), "another connection has its own limit");
        let last = ids.pop().expect("there are many");
        assert!(registry.kill(last, "a.b"));
        assert!(insert(1).is_ok(), "a closed cursor makes room");
    }
}
