-- The tables of version 1, on every server; each holds the rows of its shards.
--
-- Users and conversations go by their ids as bytes: integer keys would need an
-- allocator that all servers share. Times are milliseconds since 1970, UTC.
-- Statements end with a semicolon at the end of a line; /*months*/ becomes the
-- list of partitions from a month ago on.

-- Numbers of the store as a whole, on the home server: partitions,
-- layout_epoch, incarnation, worker_id. On every server: shards.
CREATE TABLE IF NOT EXISTS meta (
    name  VARBINARY(64)   NOT NULL PRIMARY KEY,
    value BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB;

-- Worker ids in use (home server): whoever holds one renews it.
CREATE TABLE IF NOT EXISTS worker (
    id      SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    holder  BIGINT UNSIGNED   NOT NULL,
    seen_ms BIGINT UNSIGNED   NOT NULL   -- by the home server's clock
) ENGINE = InnoDB;

-- The epoch in force of each partition that ever had an owner. The home server
-- issues it, every server keeps it: a commit checks the row beside its data,
-- under lock, and notes the newest message id in it.
CREATE TABLE IF NOT EXISTS partition_epoch (
    number            SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    epoch             BIGINT UNSIGNED   NOT NULL,
    newest_message_id BIGINT UNSIGNED   NOT NULL
) ENGINE = InnoDB;

-- ---- By user ---------------------------------------------------------------

CREATE TABLE IF NOT EXISTS users (
    user_id     VARBINARY(64)    NOT NULL PRIMARY KEY,
    username    BLOB             NOT NULL,
    password    BLOB             NOT NULL,   -- PHC string
    status      TINYINT UNSIGNED NOT NULL,   -- 1 normal, 2 banned, 3 muted
    token_epoch BIGINT UNSIGNED  NOT NULL,
    logins      BIGINT UNSIGNED  NOT NULL,   -- how many sessions were opened
    create_ms   BIGINT UNSIGNED  NOT NULL
) ENGINE = InnoDB;

-- Devices that may resume; at most 64 a user, the longest unused is forgotten.
CREATE TABLE IF NOT EXISTS device (
    user        VARBINARY(64)   NOT NULL,
    device_id   VARBINARY(64)   NOT NULL,
    platform    INT             NOT NULL,
    resume_hash BINARY(32)      NOT NULL,   -- SHA-256 of the resume token
    expires_ms  BIGINT UNSIGNED NOT NULL,   -- of the session and the resume token
    login       BIGINT UNSIGNED NOT NULL,   -- users.logins when it was left
    PRIMARY KEY (user, device_id)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS block (
    blocker VARBINARY(64) NOT NULL,
    blocked VARBINARY(64) NOT NULL,
    PRIMARY KEY (blocker, blocked)
) ENGINE = InnoDB;

-- Where an inbox ends: the row that is locked while numbers are given out.
-- Apart from `users`, so that logins and messages don't wait for each other.
CREATE TABLE IF NOT EXISTS inbox (
    user    VARBINARY(64)   NOT NULL PRIMARY KEY,
    max_seq BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB;

-- The inbox: private messages of both parties, write fan-out. The second key
-- makes the step repeatable.
CREATE TABLE IF NOT EXISTS user_msg_list (
    user         VARBINARY(64)   NOT NULL,
    user_seq     BIGINT UNSIGNED NOT NULL,
    msg_id       BIGINT UNSIGNED NOT NULL,
    conversation VARBINARY(135)  NOT NULL,
    seq          BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (user, user_seq),
    UNIQUE KEY one_place (user, msg_id)
) ENGINE = InnoDB;

-- In which conversations a user is, or was; the rest is with the conversation.
CREATE TABLE IF NOT EXISTS user_conversation_list (
    user         VARBINARY(64)    NOT NULL,
    is_group     TINYINT UNSIGNED NOT NULL,
    conversation VARBINARY(135)   NOT NULL,
    PRIMARY KEY (user, is_group, conversation)
) ENGINE = InnoDB;

-- ---- By conversation -------------------------------------------------------

-- max_seq is the fence of the log: the monthly tables' keys hold the time and
-- so cannot be. `counting` and `counting_first` are those of the newest entry.
CREATE TABLE IF NOT EXISTS conversation (
    conversation_id VARBINARY(135)  NOT NULL PRIMARY KEY,
    name            BLOB            NOT NULL,   -- empty for private ones
    max_seq         BIGINT UNSIGNED NOT NULL,
    last_ms         BIGINT UNSIGNED NOT NULL,   -- time of the newest entry
    counting        BIGINT UNSIGNED NOT NULL,
    counting_first  BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB;

-- Who is, or was, in a conversation, and how far they got.
CREATE TABLE IF NOT EXISTS member (
    conversation  VARBINARY(135)   NOT NULL,
    user          VARBINARY(64)    NOT NULL,
    first_seq     BIGINT UNSIGNED  NOT NULL,
    last_seq      BIGINT UNSIGNED  NULL,       -- the last entry to be seen; null: is in it
    last_ms       BIGINT UNSIGNED  NULL,       -- its time
    role          TINYINT UNSIGNED NOT NULL,   -- as in packet.proto
    delivered_seq BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    read_seq      BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation, user)
) ENGINE = InnoDB;

-- A conversation's log. `counting` and `counting_first` are running sums up to
-- and with this entry, so that unread is a difference of two rows: entries that
-- count as unread, and those of them by the party with the smaller name
-- (private conversations only).
CREATE TABLE IF NOT EXISTS message (
    conversation   VARBINARY(135)   NOT NULL,
    seq            BIGINT UNSIGNED  NOT NULL,
    send_ms        BIGINT UNSIGNED  NOT NULL,
    msg_id         BIGINT UNSIGNED  NOT NULL,   -- snowflake
    sender         VARBINARY(64)    NOT NULL,
    client_msg_id  BINARY(16)       NOT NULL,
    kind           TINYINT UNSIGNED NOT NULL,   -- 0 message, others: see content_row.rs
    content_type   TINYINT UNSIGNED NOT NULL,   -- of a message, as in packet.proto
    recalled       TINYINT UNSIGNED NOT NULL,   -- 1: the body was wiped
    counting       BIGINT UNSIGNED  NOT NULL,
    counting_first BIGINT UNSIGNED  NOT NULL,
    body           MEDIUMBLOB       NOT NULL,
    PRIMARY KEY (conversation, seq, send_ms)
) ENGINE = InnoDB PARTITION BY RANGE (send_ms) (/*months*/);

-- What was sent already. The month is that of the client id's own time, which a
-- look-up knows. Client ids begin with their time, so new rows gather at the end.
CREATE TABLE IF NOT EXISTS dedup (
    client_msg_id BINARY(16)      NOT NULL,
    conversation  VARBINARY(135)  NOT NULL,
    sender        VARBINARY(64)   NOT NULL,
    client_ms     BIGINT UNSIGNED NOT NULL,
    seq           BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (client_msg_id, conversation, sender, client_ms)
) ENGINE = InnoDB PARTITION BY RANGE (client_ms) (/*months*/);

-- A sender's counting entries of a group, numbered: own messages are no unread
-- ones, and this tells how many of them lie in a stretch.
CREATE TABLE IF NOT EXISTS group_own_list (
    conversation VARBINARY(135)  NOT NULL,
    sender       VARBINARY(64)   NOT NULL,
    seq          BIGINT UNSIGNED NOT NULL,
    own          BIGINT UNSIGNED NOT NULL,   -- 1, 2, 3, …
    PRIMARY KEY (conversation, sender, seq)
) ENGINE = InnoDB;
