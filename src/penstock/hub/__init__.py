"""A publish/subscribe hub with a durable log, from which clients resume.

async with open_hub() as hub:
    async with hub.subscribe(["prices"]) as prices:
        await hub.publish(ServerSentEvent("42"), topics=["prices"])
        print(await anext(prices))
"""

from penstock.hub.hub import Hub, HubStatistics, open_hub

__all__ = ["Hub", "HubStatistics", "open_hub"]
