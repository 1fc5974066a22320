package rewrite

// The model of a module. Byte slices in it alias the module that was read,
// until a pass replaces them; nobody writes through them.

// valType is the byte that stands for a value type.
type valType byte

const (
	i32       valType = 0x7f
	i64       valType = 0x7e
	f32       valType = 0x7d
	f64       valType = 0x7c
	v128      valType = 0x7b
	funcref   valType = 0x70
	externref valType = 0x6f
)

func (t valType) String() string {
	switch t {
	case i32:
		return "i32"
	case i64:
		return "i64"
	case f32:
		return "f32"
	case f64:
		return "f64"
	case v128:
		return "v128"
	case funcref:
		return "funcref"
	case externref:
		return "externref"
	}
	return "?"
}

func (t valType) isRef() bool { return t == funcref || t == externref }

// kind is what an import or export is.
type kind byte

const (
	kindFunc   kind = 0
	kindTable  kind = 1
	kindMemory kind = 2
	kindGlobal kind = 3
)

func (k kind) String() string {
	return [...]string{"func", "table", "memory", "global"}[k]
}

// module is a decoded module. Index spaces are kept as the format has them:
// imported entities are counted in the num fields and described in imports,
// the module's own follow.
type module struct {
	types   []funcType
	imports []importEntry
	funcs   []uint32 // types of the module's own functions
	tables  []tableType
	mems    []limits
	globals []globalEntry
	exports []exportEntry
	start   int64 // function index, or -1
	elems   []elemSegment
	bodies  []body
	datas   []dataSegment
	// dataCount says that there is a data count section; its value is the
	// length of datas.
	dataCount bool
	customs   []customSection

	// The imported part of each index space.
	importedFuncs   []uint32 // types
	importedTables  []tableType
	importedMems    []limits
	importedGlobals []globalType
}

type funcType struct {
	params, results []byte // one valType a byte
}

type limits struct {
	min, max uint32
	hasMax   bool
}

type tableType struct {
	elem valType
	limits
}

type globalType struct {
	typ     valType
	mutable bool
}

type importEntry struct {
	module, name string
	kind         kind
	typ          uint32 // of a function
	table        tableType
	mem          limits
	global       globalType
}

type globalEntry struct {
	globalType
	init []byte // constant expression with its end
}

type exportEntry struct {
	name  string
	kind  kind
	index uint32
}

// elemSegment keeps the vector as bytes: its length was checked, and so was
// every index in it.
type elemSegment struct {
	flags  uint32 // as in the format: bit 0 not active, bit 1 explicit or declared, bit 2 expressions
	table  uint32
	offset []byte // constant expression of an active segment
	elem   valType
	n      uint32 // elements
	vec    []byte // n function indexes, or n constant expressions with flag 4
}

func (e *elemSegment) active() bool { return e.flags&1 == 0 }

// body is a function's code.
type body struct {
	locals  []byte // the declarations: count and (n, type) pairs, as encoded
	nlocals uint32 // declared by locals, parameters excluded
	code    []byte // instructions with the last end
	off     int    // offset of code in the module
}

type dataSegment struct {
	passive bool
	offset  []byte // constant expression of an active segment
	data    []byte
}

// customSection is a section that the format gives no meaning, kept in place:
// after names the known section that it follows, 0 for the beginning.
type customSection struct {
	after byte
	name  string
	data  []byte
}

// Numbers of the known sections. Their order in a module is sectionOrder's.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
	secTag       = 13
)

var sectionOrder = [...]byte{secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport,
	secStart, secElement, secDataCount, secCode, secData}

// sectionRank returns the place of a known section in the order, from 1.
func sectionRank(id byte) int {
	for i, s := range sectionOrder {
		if s == id {
			return i + 1
		}
	}
	return 0
}

func (m *module) numFuncs() uint32   { return uint32(len(m.importedFuncs) + len(m.funcs)) }
func (m *module) numTables() uint32  { return uint32(len(m.importedTables) + len(m.tables)) }
func (m *module) numMems() uint32    { return uint32(len(m.importedMems) + len(m.mems)) }
func (m *module) numGlobals() uint32 { return uint32(len(m.importedGlobals) + len(m.globals)) }

// funcType returns the type of function i of the whole index space.
func (m *module) funcType(i uint32) *funcType { return &m.types[m.funcTypeIndex(i)] }

func (m *module) funcTypeIndex(i uint32) uint32 {
	if n := uint32(len(m.importedFuncs)); i >= n {
		return m.funcs[i-n]
	}
	return m.importedFuncs[i]
}

func (m *module) table(i uint32) *tableType {
	if n := uint32(len(m.importedTables)); i >= n {
		return &m.tables[i-n]
	}
	return &m.importedTables[i]
}

func (m *module) global(i uint32) globalType {
	if n := uint32(len(m.importedGlobals)); i >= n {
		return m.globals[i-n].globalType
	}
	return m.importedGlobals[i]
}

// memory returns the one memory, or nil.
func (m *module) memory() *limits {
	switch {
	case len(m.importedMems) > 0:
		return &m.importedMems[0]
	case len(m.mems) > 0:
		return &m.mems[0]
	}
	return nil
}

// typeIndex returns the index of the type, adding it where it is missing.
func (m *module) typeIndex(params, results []byte) uint32 {
	for i := range m.types {
		if string(m.types[i].params) == string(params) && string(m.types[i].results) == string(results) {
			return uint32(i)
		}
	}
	m.types = append(m.types, funcType{params, results})
	return uint32(len(m.types) - 1)
}

// signature returns a function type as text, such as "(i32, i64) -> i32".
func (t *funcType) signature() string {
	b := []byte{'('}
	b = appendTypes(b, t.params)
	b = append(b, ')')
	switch len(t.results) {
	case 0:
	case 1:
		b = append(b, " -> "...)
		b = appendTypes(b, t.results)
	default:
		b = append(b, " -> ("...)
		b = appendTypes(b, t.results)
		b = append(b, ')')
	}
	return string(b)
}

func appendTypes(b, types []byte) []byte {
	for i, t := range types {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, valType(t).String()...)
	}
	return b
}
