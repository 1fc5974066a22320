package main

import "github.com/wray-project/wray/host/node"

// runHidden runs the program as one of the processes that a node starts. They
// begin here, before anything else of the command line is set up.
func runHidden(args []string) (code int, ok bool) {
	if len(args) < 2 {
		return 0, false
	}
	switch args[1] {
	case node.WorkerVerb:
		return node.RunWorker(args[2:]), true
	case node.CompilerVerb:
		return node.RunCompiler(args[2:]), true
	}
	return 0, false
}
