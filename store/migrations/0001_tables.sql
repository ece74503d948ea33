-- The tables of version 1.
--
-- Names are those of the mission's schema. Users and conversations have integer
-- keys inside the store, so that the rows written per message stay small. The
-- mission's `conversation_msg_list` has no table of its own: it *is* the order
-- of `message`, which is clustered by (conversation, seq).
-- Times are milliseconds since 1970, UTC.

-- Numbers that belong to the store as a whole: partitions, layout_epoch,
-- incarnation, worker_id, newest_message_id.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- The epoch in force of each partition that ever had an owner.
CREATE TABLE partition (
    number INTEGER PRIMARY KEY,
    epoch  INTEGER NOT NULL
);

CREATE TABLE users (
    id          INTEGER PRIMARY KEY,
    user_id     TEXT    NOT NULL UNIQUE,
    username    TEXT    NOT NULL,
    password    TEXT    NOT NULL,   -- PHC string
    status      INTEGER NOT NULL,   -- 1 normal, 2 banned, 3 muted
    token_epoch INTEGER NOT NULL,
    logins      INTEGER NOT NULL,   -- how many sessions were opened
    create_ms   INTEGER NOT NULL
);

-- Devices that may resume; at most 64 a user, the longest unused is forgotten.
CREATE TABLE device (
    user        INTEGER NOT NULL,
    device_id   TEXT    NOT NULL,
    platform    INTEGER NOT NULL,
    resume_hash BLOB    NOT NULL,   -- SHA-256 of the resume token
    expires_ms  INTEGER NOT NULL,   -- of the session and the resume token
    login       INTEGER NOT NULL,   -- users.logins when it was left
    PRIMARY KEY (user, device_id)
) WITHOUT ROWID;

CREATE TABLE block (
    blocker INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    PRIMARY KEY (blocker, blocked)
) WITHOUT ROWID;

-- A log's end (max_seq, time of the last message) is its newest row in `message`
-- and nowhere else: a row here would cost every message one more page.
CREATE TABLE conversation (
    id              INTEGER PRIMARY KEY,
    conversation_id TEXT    NOT NULL UNIQUE,
    name            TEXT    NOT NULL    -- empty for private ones
);

-- A conversation's log. The key is also the fence: whoever believes in an old
-- end cannot insert the entry that follows it. `counting` and `counting_first` are running sums up to
-- and with this entry, so that unread is a difference of two rows and no
-- counter is written per member: entries that count as unread, and those of
-- them by the party with the smaller name (private conversations only).
CREATE TABLE message (
    conversation    INTEGER NOT NULL,
    seq             INTEGER NOT NULL,
    msg_id          INTEGER NOT NULL,   -- snowflake
    sender          INTEGER NOT NULL,
    client_msg_id   BLOB    NOT NULL,
    send_ms         INTEGER NOT NULL,
    kind            INTEGER NOT NULL,   -- 0 message, others: see content_row.rs
    content_type    INTEGER NOT NULL,   -- of a message, as in packet.proto
    recalled        INTEGER NOT NULL,   -- 1: the body was wiped
    counting        INTEGER NOT NULL,
    counting_first  INTEGER NOT NULL,
    first_user_seq  INTEGER,            -- place in the inbox of the smaller name
    second_user_seq INTEGER,            -- and of the larger; both null for groups
    body            BLOB    NOT NULL,
    PRIMARY KEY (conversation, seq)
) WITHOUT ROWID;

-- What was sent already. Client ids begin with their time, so new rows gather at
-- the end whoever sends them: a batch writes one or two pages of this table.
CREATE TABLE dedup (
    client_msg_id BLOB    NOT NULL,
    sender        INTEGER NOT NULL,
    conversation  INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    PRIMARY KEY (client_msg_id, sender, conversation)
) WITHOUT ROWID;

-- A sender's counting entries of a group, numbered: own messages are no unread
-- ones, and this tells how many of them lie in a stretch. Private conversations
-- need no rows here (message.counting_first).
CREATE TABLE group_own_list (
    sender       INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    own          INTEGER NOT NULL,   -- 1, 2, 3, …
    PRIMARY KEY (sender, conversation, seq)
) WITHOUT ROWID;

-- The inbox: private messages of both parties, write fan-out.
CREATE TABLE user_msg_list (
    user         INTEGER NOT NULL,
    user_seq     INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    PRIMARY KEY (user, user_seq)
) WITHOUT ROWID;

-- Who is, or was, in which conversation, and how far they got.
CREATE TABLE user_conversation_list (
    user          INTEGER NOT NULL,
    conversation  INTEGER NOT NULL,
    is_group      INTEGER NOT NULL,
    first_seq     INTEGER NOT NULL,
    last_seq      INTEGER,              -- the last entry to be seen; null: is in it
    role          INTEGER NOT NULL,     -- as in packet.proto
    delivered_seq INTEGER NOT NULL,
    read_seq      INTEGER NOT NULL,
    PRIMARY KEY (user, conversation)
) WITHOUT ROWID;

CREATE INDEX conversation_member ON user_conversation_list (conversation, user);
CREATE INDEX user_group ON user_conversation_list (user, conversation) WHERE is_group = 1;
