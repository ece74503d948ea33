-- When a device asked for its last login, by its own clock: a login that it made before, and that is
-- worked on after, must not take the place of the later one.
ALTER TABLE device ADD COLUMN connect_time_ms BIGINT UNSIGNED NOT NULL DEFAULT 0;
