module github.com/postroom/postroom/deploy

go 1.26.0
