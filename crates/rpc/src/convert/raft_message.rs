//! Raft messages: field by field, since the consensus library's own parser must not see bytes from a network.

use base::{Error, Result};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::{NUMBER_MAX, Wire};
use crate::v1;
use crate::v1::{RaftEntryType, RaftMessageType};

impl Wire for Message {
    type Message = v1::RaftMessage;

    /// Fails on a message that must not travel: a snapshot, a proposal, a note of the library to itself.
    fn into_wire(self) -> Result<v1::RaftMessage> {
        if self.has_snapshot() {
            return Err(Error::bad_value("a Raft message with a snapshot does not travel"));
        }
        let message_type = type_into_wire(self.get_msg_type())?;
        Ok(v1::RaftMessage {
            r#type: message_type.into(),
            to: self.to,
            from: self.from,
            term: self.term,
            log_term: self.log_term,
            index: self.index,
            entries: self.entries.into_iter().map(entry_into_wire).collect(),
            commit: self.commit,
            commit_term: self.commit_term,
            reject: self.reject,
            reject_hint: self.reject_hint,
            context: self.context,
            request_snapshot: self.request_snapshot,
            priority: self.priority,
            deprecated_priority: self.deprecated_priority,
        })
    }

    /// Fails also on numbers that would lead the library astray: it calculates with them and trusts that entries follow
    /// each other.
    fn from_wire(message: v1::RaftMessage) -> Result<Message> {
        check(&message)?;
        let unknown = |_| Error::failed_to_parse(format!("Raft message of unknown type {}", message.r#type));
        let message_type = RaftMessageType::try_from(message.r#type).map_err(unknown)?;
        let entries: Result<Vec<_>> = message.entries.into_iter().map(entry_from_wire).collect();
        Ok(Message {
            msg_type: type_from_wire(message_type)?,
            to: message.to,
            from: message.from,
            term: message.term,
            log_term: message.log_term,
            index: message.index,
            entries: entries?.into(),
            commit: message.commit,
            commit_term: message.commit_term,
            reject: message.reject,
            reject_hint: message.reject_hint,
            context: message.context,
            request_snapshot: message.request_snapshot,
            priority: message.priority,
            deprecated_priority: message.deprecated_priority,
            ..Message::default()
        })
    }
}

fn check(message: &v1::RaftMessage) -> Result<()> {
    let own = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ];
    let of_entries = message.entries.iter().flat_map(|entry| [entry.term, entry.index]);
    if let Some(number) = own.into_iter().chain(of_entries).find(|number| *number > NUMBER_MAX) {
        return Err(Error::failed_to_parse(format!(
            "no term and no index of a Raft log is as large as {number}"
        )));
    }
    let is_append = message.r#type == i32::from(RaftMessageType::Append);
    let follows = |(entry, index): (&v1::RaftEntry, u64)| entry.index == index;
    if is_append && !message.entries.iter().zip(message.index + 1..).all(follows) {
        return Err(Error::failed_to_parse("the entries of a Raft message do not follow each other"));
    }
    Ok(())
}

fn type_into_wire(message_type: MessageType) -> Result<RaftMessageType> {
    Ok(match message_type {
        MessageType::MsgAppend => RaftMessageType::Append,
        MessageType::MsgAppendResponse => RaftMessageType::AppendResponse,
        MessageType::MsgRequestVote => RaftMessageType::RequestVote,
        MessageType::MsgRequestVoteResponse => RaftMessageType::RequestVoteResponse,
        MessageType::MsgHeartbeat => RaftMessageType::Heartbeat,
        MessageType::MsgHeartbeatResponse => RaftMessageType::HeartbeatResponse,
        MessageType::MsgTransferLeader => RaftMessageType::TransferLeader,
        MessageType::MsgTimeoutNow => RaftMessageType::TimeoutNow,
        MessageType::MsgReadIndex => RaftMessageType::ReadIndex,
        MessageType::MsgReadIndexResp => RaftMessageType::ReadIndexResponse,
        MessageType::MsgRequestPreVote => RaftMessageType::RequestPreVote,
        MessageType::MsgRequestPreVoteResponse => RaftMessageType::RequestPreVoteResponse,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgSnapshot
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => {
            return Err(Error::bad_value(format!("a Raft message of type {message_type:?} does not travel")));
        }
    })
}

fn type_from_wire(message_type: RaftMessageType) -> Result<MessageType> {
    Ok(match message_type {
        RaftMessageType::Unspecified => return Err(Error::failed_to_parse("Raft message without a type")),
        RaftMessageType::Append => MessageType::MsgAppend,
        RaftMessageType::AppendResponse => MessageType::MsgAppendResponse,
        RaftMessageType::RequestVote => MessageType::MsgRequestVote,
        RaftMessageType::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        RaftMessageType::Heartbeat => MessageType::MsgHeartbeat,
        RaftMessageType::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        RaftMessageType::TransferLeader => MessageType::MsgTransferLeader,
        RaftMessageType::TimeoutNow => MessageType::MsgTimeoutNow,
        RaftMessageType::ReadIndex => MessageType::MsgReadIndex,
        RaftMessageType::ReadIndexResponse => MessageType::MsgReadIndexResp,
        RaftMessageType::RequestPreVote => MessageType::MsgRequestPreVote,
        RaftMessageType::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
    })
}

fn entry_into_wire(entry: Entry) -> v1::RaftEntry {
    let entry_type = match entry.get_entry_type() {
        EntryType::EntryNormal => RaftEntryType::Normal,
        EntryType::EntryConfChange => RaftEntryType::ConfChange,
        EntryType::EntryConfChangeV2 => RaftEntryType::ConfChangeV2,
    };
    v1::RaftEntry {
        r#type: entry_type.into(),
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
        sync_log: entry.sync_log,
    }
}

fn entry_from_wire(entry: v1::RaftEntry) -> Result<Entry> {
    let unknown = |_| Error::failed_to_parse(format!("Raft entry of unknown type {}", entry.r#type));
    let entry_type = match RaftEntryType::try_from(entry.r#type).map_err(unknown)? {
        RaftEntryType::Normal => EntryType::EntryNormal,
        RaftEntryType::ConfChange => EntryType::EntryConfChange,
        RaftEntryType::ConfChangeV2 => EntryType::EntryConfChangeV2,
    };
    Ok(Entry {
        entry_type,
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
        sync_log: entry.sync_log,
        ..Entry::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message whose every field differs from its default.
    fn full(msg_type: MessageType) -> Message {
        let entry = |entry_type, index| Entry {
            entry_type,
            term: 3,
            index,
            data: bytes::Bytes::from_static(b"data"),
            context: bytes::Bytes::from_static(b"context"),
            sync_log: true,
            ..Entry::default()
        };
        let kinds = [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2];
        Message {
            msg_type,
            to: 1,
            from: 2,
            term: NUMBER_MAX,
            log_term: 4,
            index: 5,
            entries: kinds
                .into_iter()
                .zip(6..)
                .map(|(kind, index)| entry(kind, index))
                .collect::<Vec<_>>()
                .into(),
            commit: 9,
            commit_term: 10,
            reject: true,
            reject_hint: 11,
            context: bytes::Bytes::from_static(b"seen again"),
            request_snapshot: 12,
            priority: -13,
            deprecated_priority: 14,
            ..Message::default()
        }
    }

    #[test]
    fn every_message_that_travels_arrives_as_it_was_and_no_other_travels() {
        let travel = [
            MessageType::MsgAppend,
            MessageType::MsgAppendResponse,
            MessageType::MsgRequestVote,
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgHeartbeat,
            MessageType::MsgHeartbeatResponse,
            MessageType::MsgTransferLeader,
            MessageType::MsgTimeoutNow,
            MessageType::MsgReadIndex,
            MessageType::MsgReadIndexResp,
            MessageType::MsgRequestPreVote,
            MessageType::MsgRequestPreVoteResponse,
        ];
        for message_type in travel {
            let message = full(message_type);
            let travelling = message.clone().into_wire().expect("travels");
            assert_eq!(Message::from_wire(travelling), Ok(message));
        }
        let stay = [
            MessageType::MsgHup,
            MessageType::MsgBeat,
            MessageType::MsgPropose,
            MessageType::MsgSnapshot,
            MessageType::MsgUnreachable,
            MessageType::MsgSnapStatus,
            MessageType::MsgCheckQuorum,
        ];
        for message_type in stay {
            assert!(full(message_type).into_wire().is_err(), "{message_type:?}");
        }
        let mut snapshot = full(MessageType::MsgAppend);
        snapshot.set_snapshot(raft::eraftpb::Snapshot::default());
        assert!(snapshot.into_wire().is_err());
    }

    #[test]
    fn numbers_that_would_lead_the_library_astray_are_refused() {
        let travelling = full(MessageType::MsgAppend).into_wire().expect("travels");
        let mut gap = travelling.clone();
        gap.entries.remove(1);
        let refused = [
            v1::RaftMessage { term: u64::MAX, ..travelling.clone() },
            v1::RaftMessage { index: u64::MAX, ..travelling.clone() },
            v1::RaftMessage { commit: u64::MAX, ..travelling.clone() },
            v1::RaftMessage { index: 4, ..travelling },
            gap,
        ];
        for message in refused {
            assert!(Message::from_wire(message.clone()).is_err(), "{message:?}");
        }
    }

    #[test]
    fn messages_and_entries_of_unknown_types_are_refused() {
        let travelling = full(MessageType::MsgAppend).into_wire().expect("travels");
        for number in [0, 13, -1, i32::MAX] {
            let message = v1::RaftMessage { r#type: number, ..travelling.clone() };
            assert!(Message::from_wire(message).is_err(), "{number}");
        }
        let mut message = travelling;
        message.entries.iter_mut().for_each(|entry| entry.r#type = 3);
        assert!(Message::from_wire(message).is_err());
    }
}
