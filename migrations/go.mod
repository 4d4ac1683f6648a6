module github.com/postroom/postroom/migrations

go 1.26.0
