package sdk

// ImportActor returns a class of actors that another module declares, in
// whatever language that is written. S is a type of this program's, which keeps
// handles of different classes apart; its values are used for nothing:
//
//	type Counter struct{}
//
//	var (
//		counters = sdk.Module("counters")
//		counter  = sdk.ImportActor[Counter, int](counters, "counter")
//		add      = sdk.ImportMethod[int, int](counter, "add")
//	)
//
//	c := counter.New(ctx, 40)
//	n, err := add.Remote(ctx, c, 2).Get(ctx)
//
// Options, handles, checkpoints and sleep are those of an [Actor]. What its module
// does not do, such as [MaxConcurrency] in most languages, its calls fail with.
func ImportActor[S, A any](m Mod, class string) Class1[A, S] {
	return Class1[A, S]{m.class(class)}
}

// ImportActor0 is [ImportActor] for a constructor without an argument.
func ImportActor0[S any](m Mod, class string) Class0[S] { return Class0[S]{m.class(class)} }

func (m Mod) class(name string) *task {
	d := m.decl(name, 1)
	d.kind = declClass
	return &task{d: d}
}

// ImportMethod returns a method of one argument of a class that another module
// declares. The module has it as a function called CLASS.METHOD.
func ImportMethod[A, R, S any](c Class[S], name string) MethodOf1[S, A, R] {
	return MethodOf1[S, A, R]{importMethod(c, name, partsOf[R](), false)}
}

// ImportMethod0 is [ImportMethod] for no argument.
func ImportMethod0[R, S any](c Class[S], name string) MethodOf0[S, R] {
	return MethodOf0[S, R]{importMethod(c, name, partsOf[R](), false)}
}

// ImportMethod2 is [ImportMethod] for two arguments.
func ImportMethod2[A, B, R, S any](c Class[S], name string) MethodOf2[S, A, B, R] {
	return MethodOf2[S, A, B, R]{importMethod(c, name, partsOf[R](), false)}
}

// ImportStreamMethod is [ImportMethod] for a method that gives its results one by
// one.
func ImportStreamMethod[A, T, S any](c Class[S], name string) StreamMethodOf1[S, A, T] {
	return StreamMethodOf1[S, A, T]{importMethod(c, name, 1, true)}
}

func importMethod[S any](c Class[S], name string, parts int, stream bool) *task {
	class := c.class(nil).d
	return &task{d: &decl{module: class.module, name: class.name + "." + name, stream: stream, kind: declMethod, parts: parts}}
}

// ImportStream returns a task of another module that gives its results one by
// one; see [Import] and [Stream].
func ImportStream[A, T any](m Mod, name string) StreamTask1[A, T] {
	d := m.decl(name, 1)
	d.stream = true
	return StreamTask1[A, T]{&task{d: d}}
}
