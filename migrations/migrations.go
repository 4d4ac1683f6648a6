// Package migrations embeds the numbered SQL files that build Postroom's
// schema. It imports nothing but the standard library's embed, so that every
// module can read the schema without taking on a dependency.
package migrations

import "embed"

// FS holds the files, named NNNNNN_title.up.sql and NNNNNN_title.down.sql.
//
//go:embed *.sql
var FS embed.FS
