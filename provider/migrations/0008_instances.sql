-- What is known of an instance by its API.

ALTER TABLE instances DROP CONSTRAINT instances_state_valid;
ALTER TABLE instances ADD CONSTRAINT instances_state_valid
    CHECK (state IN ('current', 'behind', 'late', 'refused', 'gone', 'unknown', 'unverified'));
