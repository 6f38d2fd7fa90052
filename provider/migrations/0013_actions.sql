-- What agents do by themselves: when, why and what, and what came of it, beside the finding that made them.
ALTER TABLE agent_findings ADD COLUMN action jsonb;
