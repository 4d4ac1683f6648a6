DROP VIEW db_clock;
DROP TABLE meta;
