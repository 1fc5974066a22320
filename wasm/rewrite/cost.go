package rewrite

// Costs are in units of about a third of a nanosecond of a present-day core. An
// instruction costs what it takes when it misses every cache and the engine
// compiles it badly, not what it usually takes: the sum over a path bounds the
// time between two checks. Instructions that leave no machine code are free.
const (
	costMemory  = 40  // a load or a store
	costNear    = 2   // one near an earlier one, see origin.go
	costDivide  = 12  // integer division, square root
	costFloat   = 2   // float and vector arithmetic, conversions
	costBranch  = 1   // a branch
	costSwitch  = 8   // br_table
	costCall    = 8   // a direct call, its return included
	costTable   = 16  // a call through a table; table.get and table.set
	costHost    = 256 // a call of an import, besides what the host charges
	costGrow    = 4096
	costBulk    = 300 // a bulk instruction of up to bulkInline bytes
	costMinimum = 4   // what a check charges at least; a loop has its own cost
)

const (
	// regionLimit is the cost that a path may have between two checks.
	regionLimit = 4096
	// exitLimit is what a function may leave unpaid when it returns.
	exitLimit = regionLimit / 2
	// chainLimit is the cost that all the callers on the stack together may
	// have outstanding between two checks, up to the last call through a table.
	chainLimit = 4 * regionLimit
)

// DefaultPeriod is a good next value for Tick to return: some 50 to 200
// microseconds of ordinary code, and at most a few milliseconds of the worst.
const DefaultPeriod = 1 << 20

// opCosts holds the cost of each opcode but for calls.
var opCosts = describeCosts()

func describeCosts() *[len(opTable{})]uint16 {
	c := new([len(opTable{})]uint16)
	put := func(first, last opcode, cost uint16) {
		for op := first; op <= last; op++ {
			c[op] = cost
		}
	}
	put(opBr, opBrIf, costBranch)
	put(opIf, opIf, costBranch)
	put(opBrTable, opBrTable, costSwitch)
	put(opSelect, opSelectT, 1)
	put(opLocalSet, opLocalTee, 1)
	put(opGlobalGet, opGlobalSet, 1)
	put(opTableGet, opTableSet, costTable)
	put(0x28, 0x3e, costMemory)
	put(opMemorySize, opMemorySize, 1)
	put(opMemoryGrow, opMemoryGrow, costGrow)
	put(0x45, 0x8a, 1)
	put(0x6d, 0x70, costDivide)
	put(0x7f, 0x82, costDivide)
	put(0x8b, 0xa6, costFloat)
	put(0x91, 0x91, costDivide) // f32.sqrt
	put(0x95, 0x95, costDivide)
	put(0x9f, 0x9f, costDivide) // f64.sqrt
	put(0xa3, 0xa3, costDivide)
	put(0xa7, 0xa7, 1)
	put(0xa8, 0xbf, costFloat)
	put(0xac, 0xad, 1) // extensions
	put(0xc0, 0xc4, 1)
	put(0xd1, 0xd2, 1)
	put(opFC, opFC+7, costFloat)
	put(opMemoryInit, opMemoryInit, costBulk)
	put(opDataDrop, opDataDrop, 1)
	put(opMemoryCopy, opMemoryFill, costBulk)
	put(opTableInit, opTableInit, costBulk)
	put(opElemDrop, opElemDrop, 1)
	put(opTableCopy, opTableCopy, costBulk)
	put(opTableGrow, opTableGrow, costGrow)
	put(opTableSize, opTableSize, 1)
	put(opTableFill, opTableFill, costBulk)
	put(opFD, opFD+255, costFloat)
	put(opFD, opFD+11, costMemory)
	put(opFD+84, opFD+93, costMemory)
	put(opFD+227, opFD+227, costDivide)
	put(opFD+231, opFD+231, costDivide)
	put(opFD+239, opFD+239, costDivide)
	put(opFD+243, opFD+243, costDivide)
	return c
}
