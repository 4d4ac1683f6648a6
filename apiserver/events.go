package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/queue"
)

const (
	// heartbeat is how often a stream says something, so that proxies keep it
	// and both ends notice when the line is dead.
	heartbeat = 15 * time.Second
	// streamWait is how long one write to a stream may take.
	streamWait = 30 * time.Second
)

const eventsPath = "/v1/events"

type eventsInput struct {
	LastEventID string `header:"Last-Event-ID" doc:"The id of the last event that was seen: what came after it follows. Without one the stream begins at the present."`
	LastInQuery string `query:"last_event_id" doc:"The same for callers that cannot set a header. The header counts when both are given: a browser that reconnects by itself sends the newer one there."`
	Type        string `query:"type" doc:"Only jobs of this type."`
	Queue       string `query:"queue" doc:"Only jobs in this queue."`
	Job         string `query:"job" doc:"Only the job with this id."`
}

// streamNotice is the data of the events reset and end.
type streamNotice struct {
	Code   string `json:"code" enum:"unknown_id,slow_consumer,shutting_down,database"`
	Detail string `json:"detail"`
}

var (
	streamReset = streamNotice{"unknown_id", "the log does not go on from the id that was given: it is older than the log, or a backup was restored; ask for the present state, what follows comes after it"}
	tooSlow     = streamNotice{"slow_consumer", "too many events were waiting; come back with the last id and go on from there"}
	closing     = streamNotice{"shutting_down", "the service is shutting down; come back with the last id and go on from there"}
	unreadable  = streamNotice{"database", "the log cannot be read now; come back with the last id and go on from there"}
)

func (s service) eventRoutes(a *api) {
	register(a, route{id: "events", method: "GET", path: eventsPath, summary: "Follow the changes of jobs' states as server-sent events"}, s.followEvents)
	schemas := a.huma.OpenAPI().Components.Schemas
	event, notice := schemas.Schema(reflect.TypeFor[queue.Event](), true, ""), schemas.Schema(reflect.TypeFor[streamNotice](), true, "")
	op := a.huma.OpenAPI().Paths[eventsPath].Get
	op.Description = "Each change is an event named job, with a Job event as its data and an id to come back with after a break: every change is then seen once, in order. " +
		"An event named reset says that this is not possible for the id that was given; its own id is the present. An event named end says why the stream ends. " +
		"A block that has an id and no data moves the id on where a filter kept everything back. Lines that begin with a colon only show that the line is alive."
	op.Responses["200"] = &huma.Response{Description: "the stream; the data of each event is one of these", Content: map[string]*huma.MediaType{
		"text/event-stream": {Schema: &huma.Schema{OneOf: []*huma.Schema{event, notice}}},
	}}
}

// followEvents refuses what it must while that can still be done with a status.
func (s service) followEvents(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	var from *queue.EventID
	if last := in.LastEventID + in.LastInQuery; last != "" {
		if in.LastEventID != "" {
			last = in.LastEventID
		}
		id := queue.ParseEventID(last)
		from = &id
	}
	l, err := s.events.Listen(ctx, from, queue.EventFilter{JobID: in.Job, Type: in.Type, Queue: in.Queue})
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer l.Close()
		r, w := humago.Unwrap(hc)
		s.stream(w, r, l, from == nil)
	}}, nil
}

// stream writes events until the caller leaves or the listener ends.
func (s service) stream(w http.ResponseWriter, r *http.Request, l *queue.Listener, fromNow bool) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform") // compressing proxies would hold events back
	h.Set("X-Accel-Buffering", "no")                 // so would nginx
	if r.Method == http.MethodHead {
		return
	}
	out := newStream(w)
	out.comment("postroom")
	if fromNow {
		out.id(l.At()) // who is cut off before the first event can come back too
	}
	for out.flush() {
		if !s.wait(r.Context(), l, out) {
			out.flush()
			return
		}
	}
}

// wait writes what comes next and says whether there may be more.
func (s service) wait(ctx context.Context, l *queue.Listener, out *stream) bool {
	waiting, cancel := context.WithTimeout(ctx, s.heartbeat)
	defer cancel()
	page, err := l.Next(waiting)
	switch {
	case err == nil && page.Reset:
		out.notice("reset", page.At, streamReset)
	case err == nil:
		for _, e := range page.Events {
			out.event("job", queue.EventID{Epoch: page.At.Epoch, Seq: e.Seq}, e.JSON)
		}
		return true
	case ctx.Err() != nil:
		return false // the caller has left
	case waiting.Err() != nil:
		out.comment("still here")
		out.id(l.At())
	case errors.Is(err, queue.ErrSlowListener):
		out.notice("end", l.At(), tooSlow)
		return false
	case errors.Is(err, queue.ErrEventsClosed):
		out.notice("end", l.At(), closing)
		return false
	default:
		s.log.Warn().Ctx(ctx).Err(err).Str("request_id", httpd.RequestID(ctx)).Msg("a stream of events ended")
		out.notice("end", l.At(), unreadable)
		return false
	}
	return true
}

// stream sends blocks of text/event-stream.
type stream struct {
	*bufio.Writer // remembers an error
	rc            *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	s := &stream{rc: http.NewResponseController(w)}
	s.Writer = bufio.NewWriterSize(timely{w, s.rc}, 16<<10) // of which there may be thousands
	return s
}

// timely bounds each write.
type timely struct {
	io.Writer
	rc *http.ResponseController
}

func (t timely) Write(p []byte) (int, error) {
	_ = t.rc.SetWriteDeadline(time.Now().Add(streamWait)) // where there is none, there is no bound to move
	return t.Writer.Write(p)
}

func (o *stream) comment(text string) { fmt.Fprintf(o, ": %s\n\n", text) }

func (o *stream) id(id queue.EventID) { fmt.Fprintf(o, "id: %s\n\n", id) }

func (o *stream) event(name string, id queue.EventID, data string) {
	fmt.Fprintf(o, "id: %s\nevent: %s\ndata: %s\n\n", id, name, data)
}

func (o *stream) notice(name string, id queue.EventID, n streamNotice) {
	data, err := json.Marshal(n)
	if err != nil {
		panic("apiserver: encode a notice: " + err.Error())
	}
	o.event(name, id, string(data))
}

// flush sends what was collected and says whether the caller is still there.
func (o *stream) flush() bool { return o.Flush() == nil && o.rc.Flush() == nil }
