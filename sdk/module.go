package sdk

import (
	"context"

	"github.com/wray-project/wray/sdk/internal/rt"
)

// Mod is another module of the job.
type Mod struct{ name string }

// Module names a module that was submitted with the job (wray run PROGRAM
// --with NAME.wasm). Whether it is there shows when something of it is called.
// Modules exist under wray alone, not in a native build.
func Module(name string) Mod { return Mod{name} }

// Import0 is [Import] for no arguments.
func Import0[R any](m Mod, name string) Task0[R] {
	return Task0[R]{&task{d: m.decl(name, partsOf[R]())}}
}

// Import returns a task that another module declares, with the types that
// this program gives and takes:
//
//	var resize = sdk.Import[[]byte, []byte](sdk.Module("images"), "resize")
func Import[A, R any](m Mod, name string) Task1[A, R] {
	return Task1[A, R]{&task{d: m.decl(name, partsOf[R]())}}
}

// Import2 is [Import] for two arguments.
func Import2[A, B, R any](m Mod, name string) Task2[A, B, R] {
	return Task2[A, B, R]{&task{d: m.decl(name, partsOf[R]())}}
}

// Import3 is [Import] for three arguments.
func Import3[A, B, C, R any](m Mod, name string) Task3[A, B, C, R] {
	return Task3[A, B, C, R]{&task{d: m.decl(name, partsOf[R]())}}
}

// Import4 is [Import] for four arguments.
func Import4[A, B, C, D, R any](m Mod, name string) Task4[A, B, C, D, R] {
	return Task4[A, B, C, D, R]{&task{d: m.decl(name, partsOf[R]())}}
}

func (m Mod) decl(name string, parts int) *decl {
	return &decl{module: m.name, name: name, parts: parts}
}

// Command returns the module as a command: any WASI program with _start.
func (m Mod) Command() Command {
	return Command{&task{d: m.decl("_start", partsOf[Output]())}}
}

// Command is a WASI program as a task. Each run has a fresh sandbox.
type Command struct{ t *task }

// With returns the command with other options.
func (c Command) With(opts ...Option) Command { return Command{c.t.with(opts)} }

// Input is what a command gets.
type Input struct {
	Args  []string          // without the program's own name
	Env   map[string]string // added to the job's
	Stdin []byte
	// StdinRef, where it is not zero, is used instead of Stdin.
	StdinRef Ref[[]byte]
}

// Output is what a command gives. A program that exits with another code than
// 0 has not failed as a task.
type Output struct {
	Stdout, Stderr []byte
	ExitCode       int
}

// Remote runs the command.
func (c Command) Remote(ctx context.Context, in Input) Ref[Output] {
	p := newPacket(3)
	if in.Args == nil {
		in.Args = []string{}
	}
	if in.Env == nil {
		in.Env = map[string]string{}
	}
	err := arg(p, 0, &in.Args)
	if err == nil {
		err = arg(p, 1, &in.Env)
	}
	switch {
	case err != nil:
	case in.StdinRef.IsZero():
		err = arg(p, 2, &in.Stdin)
	default:
		err = in.StdinRef.set(p, 2)
	}
	return Ref[Output]{c.t.submit(ctx, p, err)}
}

// Run runs the command with args and waits for its output.
func (c Command) Run(ctx context.Context, args ...string) (Output, error) {
	return c.Remote(ctx, Input{Args: args}).Get(ctx)
}

// Stdout returns a reference to what a command wrote to standard output, to be
// passed on without being read here.
func Stdout(r Ref[Output]) Ref[[]byte] { return part[[]byte](r.p, 0, 3) }

func (*Output) parts() int { return 3 }

func (o *Output) encodePart(i int, buf []byte, v *rt.Value) ([]byte, error) {
	switch i {
	case 0:
		return encode(&o.Stdout, buf, v)
	case 1:
		return encode(&o.Stderr, buf, v)
	}
	return encode(&o.ExitCode, buf, v)
}

func (o *Output) decodePart(i int, v *rt.Value) error {
	switch i {
	case 0:
		return decode(v, &o.Stdout)
	case 1:
		return decode(v, &o.Stderr)
	}
	return decode(v, &o.ExitCode)
}
