-- The logical shards whose rows this database holds: what the configuration says
-- is held against it, so that no shard is looked for where its data isn't. Beside
-- it `home` in `meta`: 1 in the database that issues the store's numbers.
CREATE TABLE IF NOT EXISTS shard (
    number SMALLINT UNSIGNED NOT NULL PRIMARY KEY
) ENGINE = InnoDB;
