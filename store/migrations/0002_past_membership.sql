-- Earlier windows of those who left a group and came back: what they saw then
-- stays theirs. The row in user_conversation_list is the latest window; it moves
-- here, closed, when its user joins again.
CREATE TABLE past_membership (
    user         INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    first_seq    INTEGER NOT NULL,
    last_seq     INTEGER NOT NULL,
    PRIMARY KEY (user, conversation, first_seq)
) WITHOUT ROWID;
