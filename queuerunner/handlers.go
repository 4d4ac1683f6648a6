package main

import (
	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/debugjobs"
	"github.com/postroom/postroom/core/mail/agent"
	"github.com/postroom/postroom/core/worker"
)

// handlers lists everything that this program can do for a job.
func handlers(cfg *config.Loaded, mail *agent.Agent) []worker.Binding {
	list := mail.Bindings() // account.sync, message.ingest, message.classify, action.execute
	if cfg.Queue.DebugJobs {
		list = append(list, debugjobs.Bindings()...) // debug.*
	}
	return list
}
