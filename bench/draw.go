package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// The picture's measures, in pixels.
const (
	pictureWidth = 720
	labelWidth   = 150
	figureWidth  = 110
	barHeight    = 16
	barStep      = 22
	titleStep    = 34
)

// draw makes an SVG with a bar per peer for each workload that has a rate. It
// takes its colours from the page around it, so that it reads on light and
// dark alike.
func (r *results) draw() string {
	var bars strings.Builder
	y := 0
	for _, workload := range r.rated() {
		y += titleStep
		fmt.Fprintf(&bars, "<text x=\"0\" y=\"%d\" class=\"title\">%s</text>\n", y-10, html.EscapeString(r.Results[r.firstOf(workload)].help+", jobs/s"))
		most := 0.0
		for _, p := range r.having(workload) {
			most = max(most, median(r.find(workload, p.Name).column(rate)))
		}
		for _, p := range r.having(workload) {
			got := median(r.find(workload, p.Name).column(rate))
			width := got / most * (pictureWidth - labelWidth - figureWidth)
			class := "peer"
			if p.program == r.Peers[0].program {
				class = "own"
			}
			fmt.Fprintf(&bars, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text><rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" class=\"%s\"/><text x=\"%.1f\" y=\"%d\">%.0f</text>\n",
				labelWidth-8, y+barHeight-4, html.EscapeString(p.Name), labelWidth, y, width, barHeight, class, labelWidth+width+6, y+barHeight-4, got)
			y += barStep
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<style>text { fill: #57606a } .title { font-weight: bold } .own { fill: #2f6fdb } .peer { fill: #a8b3c1 }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } .peer { fill: #6e7681 } }</style>
%s</svg>
`, pictureWidth, y+10, bars.String())
}

// having lists the peers that a workload was run on.
func (r *results) having(workload string) []*peer {
	return slices.DeleteFunc(slices.Clone(r.Peers), func(p *peer) bool { return !p.has(workload) })
}

// rated lists the workloads that have a rate, as they were run.
func (r *results) rated() []string {
	var names []string
	for _, x := range r.Results {
		if !x.isLatency() && !slices.Contains(names, x.Workload) {
			names = append(names, x.Workload)
		}
	}
	return names
}
