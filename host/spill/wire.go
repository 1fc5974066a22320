package spill

import "os"

// Op is what a store asks for.
type Op uint8

// The operations.
const (
	OpCreate Op = iota + 1 // Request.N: the most bytes of the batch. Reply: Batch, Name, and a file to read it, if there is one
	OpWrite                // Batch, Pieces, Data, Last
	OpRead                 // Batch, Off, N: where there is no file. Reply: Data, shorter at the end
	OpPunch                // Batch, Off, N
	OpRemove               // Batch
)

// Request is what a store asks of who keeps its batches. It comes from a
// process that a guest may have taken over.
type Request struct {
	Op     Op      `cbor:"1,keyasint"`
	Batch  uint64  `cbor:"2,keyasint,omitempty"`
	N      int64   `cbor:"3,keyasint,omitempty"`
	Off    int64   `cbor:"4,keyasint,omitempty"`
	Pieces []Piece `cbor:"5,keyasint,omitempty"`
	Data   []byte  `cbor:"6,keyasint,omitempty"` // of the pieces that are in no file, one after the other
	Last   bool    `cbor:"7,keyasint,omitempty"` // the batch is complete with this
}

// Piece is a part of what is written.
type Piece struct {
	_    struct{} `cbor:",toarray"`
	File int      // which of the files that came with the request; -1: it is in Data
	Off  int64    // in the file
	Len  int64
}

// Reply is the answer.
type Reply struct {
	Batch uint64 `cbor:"1,keyasint,omitempty"`
	Name  string `cbor:"2,keyasint,omitempty"` // where it is, for errors
	N     int64  `cbor:"3,keyasint,omitempty"` // bytes that the batch takes now
	Data  []byte `cbor:"4,keyasint,omitempty"`
}

// Bounds of one request.
const (
	maxPieces = 128       // of a write
	maxFiles  = 60        // that come with it
	maxData   = 1 << 20   // bytes that come in it
	maxWrite  = 8 << 20   // bytes of a write
	maxRead   = 1 << 20   // bytes of a read
	copyUnit  = 256 << 10 // how much is copied at once where a kernel does not
)

// Call carries a request out: by a message, or in this process.
type Call func(Request, []*os.File) (Reply, []*os.File, error)
