DROP TABLE discord_whitelist;
DROP TABLE rules_chat_messages;
DROP TABLE rules_chat_sessions;
DROP TABLE directions;
DROP TABLE llm_rules;
DROP TABLE deterministic_rules;
