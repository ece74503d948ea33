"""A flash sale: many more buyers than pieces, all at the same moment.

Clients ask the service `flash-sale` with the item's name as the payload and
their own name as the key. The stock lies in Redis; one script takes a piece and
writes the buyer down in the same step, so nothing is sold twice however many
partitions, processes and repeats there are. A buyer who asks again hears the
first answer.

Status 0 and the number of the order in decimal: bought. Status 1: sold out.
"""

from sluice_backend import arguments, connect, run

SOLD_OUT = 1

# KEYS: pieces left, orders by buyer. Both carry the item as their hash tag.
BUY = """
local order = redis.call('HGET', KEYS[2], ARGV[1])
if order then return order end
local left = tonumber(redis.call('GET', KEYS[1]) or '0')
if left < 1 then return false end
redis.call('DECR', KEYS[1])
order = tostring(redis.call('HLEN', KEYS[2]) + 1)
redis.call('HSET', KEYS[2], ARGV[1], order)
return order
"""


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--item", default="lamp")
    parser.add_argument("--stock", type=int, default=100,
                        help="pieces, unless the sale of the item has begun already")
    options = parser.parse_args()
    shop = connect(options.redis)
    shop.set(f"shop:{{{options.item}}}:left", options.stock, nx=True)

    def handle(request):
        item = request.payload.decode()
        keys = f"shop:{{{item}}}:left", f"shop:{{{item}}}:orders"
        # Who asks is the gateway's word: nobody buys in another's name.
        order = shop.eval(BUY, len(keys), *keys, request.origin.user_id)
        return (0, order) if order else (SOLD_OUT, b"")

    run("flash-sale", handle, options)


if __name__ == "__main__":
    main()
