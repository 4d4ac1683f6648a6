module github.com/postroom/postroom/queuerunner

go 1.26.0

require github.com/postroom/postroom/core v0.0.0

replace (
	github.com/postroom/postroom/core => ../core
	github.com/postroom/postroom/migrations => ../migrations
)
